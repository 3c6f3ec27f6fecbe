"""The word lists and templates of the corpus.

A template holds alternatives in square brackets, `[a|b|c]`, which may nest and of which one is drawn, and slots in
braces, `{hero}`, which are filled from a dictionary. A beat that starts with `?` is left out two times in five.
In the blocks below, a line that is indented further goes on with the entry above it, and ` // ` is a line break.
"""

import re


def words(text: str) -> list[str]:
    """The words of `text`."""
    return text.split()


def choices(text: str) -> list[str]:
    """What stands between the bars of `text`."""
    return [part.strip() for part in " ".join(text.split()).split("|")]


def pairs(text: str) -> dict[str, str]:
    """The choices of `text`, each a `key=value`."""
    return dict(choice.split("=") for choice in choices(text))


def one_of(text: str) -> str:
    """`text` as the alternatives of a template, without the brackets around them."""
    return " ".join(text.split()).replace(" | ", "|")


def entries(text: str) -> tuple[str, ...]:
    """The entries of a block, one a line and its continuation lines."""
    indent = "\n" + " " * (len(text) - len(text.lstrip()) - 1)
    lines = re.split(indent + r"(?! )", text.rstrip())[1:]
    return tuple(" ".join(line.split()).replace(" // ", "\n") for line in lines)


def exchanges(text: str) -> tuple[tuple[str, str], ...]:
    """The entries of a block, each a `question => answer`."""
    return tuple((question, answer) for question, answer in (entry.split(" => ") for entry in entries(text)))


def facts(text: str) -> dict[str, tuple[str, ...]]:
    """The entries of a block, each a `subject = sentence | sentence`."""
    split = (entry.split(" = ") for entry in entries(text))
    return {subject: tuple(choices(sentences)) for subject, sentences in split}


# ----------------------------------------------------------------------------------------------------------- word lists

GIRLS = words(
    """
    Anna Mira Lucy Nora Ella Rosa Hana Tess Ivy Maya Clara Lena Zoe Alice Ruth Wren June Olive Sara Kate Amina
    Freya Greta Iris Leila Mina Petra Yuki
    """
)
BOYS = words(
    """
    Tom Ben Leo Sam Omar Finn Jack Max Theo Noah Hugo Eli Paul Ravi Luke Oscar Amir Peter Kenji Jonas Milo Felix
    Henry Marco Owen Pablo Simon Walter
    """
)
WORKS = words(
    """
    baker farmer teacher fisher gardener painter carpenter doctor sailor librarian tailor potter clockmaker
    musician beekeeper shepherd postman cook builder runner
    """
)
TRAITS = words(
    """
    kind brave curious quiet cheerful clever patient gentle careful honest proud shy busy friendly thoughtful
    stubborn hopeful playful
    """
)
COLOURS = words(
    """
    red blue green yellow white black brown silver golden grey orange purple pink
    """
)
SIZES = words(
    """
    small little big tiny old new shiny heavy light round beautiful strange simple
    """
)
GOALS = choices(
    """
    the old castle | the sea | the highest mountain | the end of the river | the great city | the northern lights
    """
)
OUTSIDE = choices(
    """
    in the tall grass | under a pile of leaves | near the well | between two stones | below a wooden bench |
    behind an old wall | under a bush | beside the road | at the foot of a tree | in the mud
    """
)
THINGS = words(
    """
    key map lantern kite book drum hat box bell ring compass flute boat clock coin basket blanket pencil scarf
    mirror ball whistle candle feather letter button cup ladder rope spoon stone flag baton
    """
)
ANIMALS = words(
    """
    dog cat fox rabbit owl horse duck goat mouse bear squirrel turtle hedgehog crow frog sheep donkey goose otter
    deer robin badger
    """
)
FOODS = choices(
    """
    bread | soup | apple pie | cheese | honey cake | warm milk | pancakes | plum jam | rice | fresh berries
    """
)
PLANTS = choices(
    """
    roses | tomatoes | sunflowers | beans | apple trees | carrots | tulips | pumpkins | herbs | strawberries
    """
)
HOMES = choices(
    """
    in a small village by the sea | in a quiet town near the mountains |
    in a little house at the edge of the forest | in a tall house on a busy street |
    in a wooden cabin by the lake | on a farm behind the hill | in an old mill beside the river |
    in a village in a green valley | in a city with many bridges | on an island far from the coast |
    in a small room above the bakery
    """
)
PLACES = choices(
    """
    the forest | the market | the river | the beach | the old bridge | the library | the school | the hill |
    the garden | the harbour | the lake | the mill | the station | the park | the castle | the meadow |
    the lighthouse | the village square | the cave | the orchard
    """
)
HIDING = choices(
    """
    under the bed | behind the door | in the tall grass | under a pile of leaves | inside an old box |
    near the well | on top of the cupboard | between two stones | below the wooden bench |
    at the bottom of the basket | beside the garden gate
    """
)
SKILLS = choices(
    """
    to swim | to bake bread | to play the flute | to ride a horse | to draw birds | to read old maps |
    to sail a boat | to juggle | to whistle | to run a long way | to grow tomatoes | to mend a clock |
    to sing in tune | to tie strong knots
    """
)
NUMBERS = words(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
    """
)
DAYS = words(
    """
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday
    """
)
MONTHS = words(
    """
    January February March April May June July August September October November December
    """
)
UNKNOWN = choices(
    """
    quantum physics | stock prices | ancient history | chess openings | tax law | rocket engines | modern art |
    medicine | football results | programming | politics | deep sea fishing | opera | philosophy | algebra |
    economics | video games | cars | the news | geology | chemistry | the weather tomorrow | film stars |
    the stars of other galaxies | machine learning
    """
)
UNKNOWN_TASKS = choices(
    """
    sort a list in Python | write a program | repair a car | win at chess | install a printer | invest money |
    solve an equation | speak French | build a rocket | find a job | fly a plane | train a large model |
    cook for ten people
    """
)
POEM_TOPICS = choices(
    """
    autumn | winter | spring | summer | the rain | the sea | the moon | the night | the wind | a friend | my garden |
    the snow | the city | home | time | hope
    """
)

# ------------------------------------------------------------------------------------------------------------ templates

TIMES = one_of(
    """
    One morning | One evening | One day |
    On a [cold|warm|bright|grey|windy|quiet|rainy|sunny] [morning|afternoon|evening|day] | Early in the morning |
    Late in the afternoon | On the first day of [spring|summer|autumn|winter] |
    Last [spring|summer|autumn|winter] |
    On a [Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday] in [March|April|May|June|July|October|November]
    """
)
LATER = one_of(
    """
    The next [morning|day] | A few days later | [That|The same] [evening|afternoon] | A week later |
    Some time later | The following [week|spring|summer|winter] | Two days after that | Not long after
    """
)
WEATHER = one_of(
    """
    The sun was [warm|bright] and the [sky|air] was clear. |
    A [soft|cold|gentle] wind blew [from the sea|over the hills|through the trees]. |
    It was raining, and the streets were [wet|empty|quiet]. | The [snow|frost] lay [white|thick] on the roofs. |
    The clouds were [low|grey|dark], but it did not rain. | The birds were singing in the trees. |
    The leaves were turning [red|yellow|brown]. |
    The [moon|first star] was [bright|shining] above the [hills|roofs|water]. |
    The air smelled of [rain|flowers|bread|the sea|wood smoke].
    """
)
WEATHER_NOW = one_of(
    """
    The sun is [warm|bright]. | A [soft|cold|gentle] wind blows [from the sea|over the hills|through the trees]. |
    It is raining [a little|]. | The sky is [grey|blue|clear|dark]. | The birds are singing in the trees. |
    The air smells of [rain|flowers|bread|the sea|wood smoke]. | There is snow on the roofs.
    """
)
OPENINGS = entries(
    """
    Once upon a time, there was [a {trait} {work}|a {trait} {girl_boy}|a {trait} young {work}] called {hero}.
    Once upon a time, {hero} lived {home}.
    There was once a {trait} {work} named {hero} who lived {home}.
    {hero} was a {trait} {work} who lived {home}.
    {hero} and {friend} were good friends. They lived {home}.
    {home} lived a {trait} {work}. {His} name was {hero}.
    A long time ago, a {trait} {work} called {hero} lived {home}.
    {hero} had always lived {home}, and {he} knew everyone there.
    """
)
TRAIT_LINES = entries(
    """
    ?{He} was [also|always|rather|often] {trait2}, and [people|the neighbours|the children] liked {him} [for it|very
        much].
    ?{He} had a {colour} {animal} that [followed {him} everywhere|slept by the fire|liked to eat {food}].
    ?{His} best friend was {friend}, a {trait3} {work2}.
    ?Every [morning|evening|Sunday], {he} [walked to {place}|ate some {food}|sat by the window and
        [read|sang|drew]].
    """
)
PLOTS = {
    "lost": entries(
        """
        {time}, {hero} [could not find|lost|noticed that {he} had lost] {his} {size} {thing}.
        ?{He} [felt sad|was worried], because [it had belonged to {his} [grandmother|grandfather|mother|father]|{he}
            loved it very much].
        {He} looked {hiding}, but it was not there. Then {he} looked {hiding2}, but [there was only dust|it was not
            there either].
        "[Have you seen my {thing}|Do you know where my {thing} is]?" {he} asked {friend}.
        "[No, but I will help you|No, I have not, but let us look together|I think I saw it near {place}]," said
            {friend}.
        They [walked|went|ran] to {place} and [searched|looked] [everywhere|for a long time|until the sun went down].
        At last, [{friend}|{hero}|the {animal}] found the {thing} {outside}.
        {hero} [smiled|laughed|was very happy]. "Thank you," {he} said. "[I could not have done it alone|You are a true
            friend]."
        """
    ),
    "found": entries(
        """
        {time}, {hero} [was walking|went] to {place} [alone|with {friend}|with {his} {animal}].
        ?{weather}
        There, {outside}, {he} saw a {size} {colour} {thing}.
        {He} picked it up and [looked at it closely|turned it in {his} hands|cleaned it with {his} sleeve].
        ?It was [heavier|lighter|older|warmer] than it looked.
        "[Who could have left this here?|Whose {thing} is this?|What a {size} {thing}!]" {he} [thought|said].
        {He} [showed it to|took it to|asked] {friend}, who [knew a lot about old things|was sitting by the fire|was
            working outside].
        "[It belongs to the {work2}|I lost it last winter|That is a very old {thing}]," said {friend}. "[You should keep
            it safe|We must give it back|I am glad that you found it]."
        So {hero} [brought it back to its owner|kept it safe on a shelf|put it in {his} pocket], and [{he} felt
            proud|everyone was glad|that night {he} slept well].
        """
    ),
    "learn": entries(
        """
        {time}, {hero} decided to learn {skill}.
        [It was not easy|It was harder than it looked|At first, nothing went well]. {He} tried [once|twice|three times],
            [but {he} failed|and each time something went wrong].
        "[I will never learn it|This is too difficult]," {he} [said|sighed].
        "[Do not give up|Try again tomorrow|Go slowly, and do one thing at a time]," said {friend}. "[Nobody is good on
            the first day|I also needed a long time|Every expert was a beginner once]."
        So {hero} practised every [day|morning|evening]. [{He} made small steps|{He} made many mistakes and learned from
            them].
        ?{friend} [helped {him}|watched {him}|brought {him} some {food}] and [smiled|told {him} to rest].
        After [a week|a month|many weeks], {he} [could do it|was good at it]. [Everyone in {home_short} was
            surprised|{friend} clapped {fhis} hands].
        [{hero} was proud and happy|Now {he} teaches it to others|It was the best day of the year].
        """
    ),
    "race": entries(
        """
        {time}, there was a relay race [in the village square|around the lake|at the school|from {place} to the sea].
        {hero} ran for the {colour} team, together with {friend} and two others.
        ?[The {colour2} team was very fast|Many people came to watch|{hero} was nervous, because {he} had never run
            before].
        {hero} [held the baton tightly|waited for the baton|took a deep breath] and ran as fast as {he} could.
        [Then {he} passed the baton to {friend}|{friend} held out {fhis} hand, and the baton passed from one hand to the
            other].
        [It almost fell, but {friend} held on|Neither of them stopped running|It was a perfect pass].
        [The {colour} team won by one step|The {colour} team came second, but nobody was sad|In the end, both teams
            crossed the line together].
        "[We did it together|A race is won by the whole team|Next year we will be even faster]," said {hero}.
        """
    ),
    "animal": entries(
        """
        {time}, {hero} [heard a strange sound|saw something move] near {place}.
        It was a [small|young|tired|hungry] {animal}. Its leg was hurt, and it [was cold|could not move|was afraid].
        "[Do not be afraid|You poor thing]," {he} said [softly|gently|quietly]. "[I will help you|Come with me]."
        {He} [wrapped it in a {colour} blanket|carried it home in a basket] and gave it some [water|food|milk].
        {friend} [came to help|brought clean cloth|knew what to do]. Together they [cared for it|watched over it] [all
            night|for many days].
        ?{weather}
        [Slowly|Day by day], the {animal} grew strong again.
        [When spring came|One morning], it [ran|went] back to {place}. [But it often came to visit|It turned around
            once, as if to say thank you].
        """
    ),
    "storm": entries(
        """
        {time}, dark clouds came over {place}, and [the wind grew strong|it began to rain].
        {hero} was [on the road|in a small boat|far from home] with [{friend}|{his} {animal}].
        "[We must find shelter|Quick, this way|Stay close to me]," {he} [called|cried].
        They found [an old barn|a dry cave|an empty hut|a house with a light in the window] and [went inside|ran to the
            door].
        [Inside it was warm|There was a small fire|They lit a candle], and they [shared some {food}|told
            stories|listened to the rain].
        ?[The thunder was loud|The wind shook the walls], but they were [not afraid|safe].
        In the morning, the storm was over. [The air was fresh|The sky was clear again|All was quiet].
        [They walked home together|They thanked the old {work2} and went home|The world looked clean and new].
        """
    ),
    "gift": entries(
        """
        {time}, it was the birthday of {friend}. {hero} wanted to [give|make] {fhim} a [special|fine|good] gift.
        {He} had [no money|only one coin|little time], so {he} [thought for a long while|asked the {work2} for advice].
        [Then {he} had an idea|At last {he} knew what to do]. {He} [built|made|painted] a {size} {colour} {thing} [with
            {his} own hands|]. It took {him} [the whole night|three days|all morning].
        "[This is for you|Happy birthday]," said {hero}.
        {friend} [opened it slowly|looked at it for a long time] and [smiled|could not speak|laughed with joy].
        "[It is the best gift of all|Nobody has ever given me such a {thing}]," {fhe} said.
        [They ate {food} together|They sat together until it was dark], and it was a [happy|wonderful|good] day.
        """
    ),
    "garden": entries(
        """
        {time}, {hero} [planted|wanted to grow] {plants} in the garden [behind the house|near {place}].
        {He} [dug the ground|cleared the stones] and put the seeds [in the earth|in long rows].
        Every day {he} gave them water. [But nothing happened|For a long time, nothing could be seen].
        "[Are the seeds bad|Why does nothing grow]?" {he} asked {friend}.
        "[You must be patient|Plants need time, and so do people|Wait for the rain]," said {friend}.
        ?{weather}
        Then, one [morning|day], the first green leaves [came out of the ground|were there].
        By [summer|autumn], the garden was full of {plants}. {hero} [gave some to every neighbour|sold them at the
            market|made a big dinner for {his} friends].
        """
    ),
    "market": entries(
        """
        {time}, {hero} went to the market to buy {food}.
        The market was full of [people|colours and voices]. [One man sold {plants}|A woman sold {colour} scarves], and
            another sold [clocks|fish|drums].
        {hero} had {n1} coins. The {thing} that {he} liked cost {n2} coins.
        "[That is too much for me|I do not have enough]," said {hero}.
        "[Help me carry these boxes, and it is yours|Give me what you have, and tell me a good story]," said the seller.
        [So {hero} did it gladly|{hero} agreed at once], and [soon|an hour later] {he} walked home with the {size}
            {thing}.
        ?{friend} was waiting at the [door|gate|bridge] and asked what {he} had bought. {hero} [only smiled|told {fhim}
            everything|showed it to {fhim}], and [they both laughed|they went in together].
        """
    ),
    "journey": entries(
        """
        {time}, {hero} [left home|packed a bag|set out] to [find|see] {goal}.
        {He} took [a {thing}|some {food} and a {thing}|only a {colour} coat and a map].
        On the way {he} met {friend}, who was [also on the road|resting under a tree|carrying a heavy bag].
        "Where are you going?" asked {friend}. "To {goal}," said {hero}. "[May I come with you?|Then we have the same
            way,]" said {friend}.
        They walked for {n1} days. They crossed [a river|two hills|a wide field] and slept [under the stars|in a
            barn|beside a small fire].
        ?{weather}
        [When they came to {goal}|At the end of the road], they saw [how beautiful it was|more than they had hoped for].
        [They stayed until winter|They built a small house there|Then they went home and told everyone about it].
        """
    ),
    "secret": entries(
        """
        {time}, {friend} gave {hero} [an old letter|a {colour} box|a {size} {thing}] and said, "[Do not open it yet|Keep
            it until I come back]."
        {hero} [wanted to know|could not stop thinking about] what it meant.
        {He} put it {hiding} and [waited|tried to forget it].
        [Days passed|A month went by], and {he} [kept {his} word|did not look].
        [When {friend} came back,|At last {friend} returned, and] {fhe} asked, "Did you [open it|look]?"
            "No," said {hero}. "[I promised|A promise is a promise]."
        {friend} smiled. [Inside was a map of {place}|Inside was a golden key|It was a gift for {hero}].
        "[I wanted to give it to someone I can trust|Now it is yours]," {fhe} said.
        """
    ),
    "quarrel": entries(
        """
        {time}, {hero} and {friend} [had a quarrel|were angry with each other] about a {size} {thing}.
        "[It is mine|I saw it first|You broke it]," said {hero}. "[That is not true|No, it is mine|It was not me]," said
            {friend}.
        They [did not speak|walked home alone|stayed away from each other] for {n1} days.
        {hero} [missed {his} friend|felt lonely|could not sleep]. [Even {food} did not taste good|The house was too
            quiet].
        So {he} went to {place}, where {friend} [was sitting|was looking at the water].
        "I am sorry," said {hero}. "[A friend is worth more than a {thing}|I was wrong]." "[I am sorry too|So was I],"
            said {friend}.
        [Then they laughed|They shared some {food}], and from that day they [shared the {thing}|never fought again].
        """
    ),
    "repair": entries(
        """
        {time}, the [old clock|wooden bridge|mill wheel|village bell|lamp of the lighthouse] [stopped working|broke].
        [Nobody knew what to do|The people were worried]. {hero} said that {he} would [try to repair it|look at it].
        {He} [climbed up|opened it|looked inside] with a {thing} in {his} hand and saw that [a small part was
            missing|one piece was broken].
        {friend} [made a new part from wood|brought the right tools|held the light].
        They worked [all night|for {n1} hours|until their hands were tired].
        ?"[Does it turn now|Is it ready]?" asked {friend}. "[Almost|One more turn]," said {hero}.
        In the end, it worked [again|better than before]. The people [cheered|came out of their houses|thanked them with
            {food}].
        """
    ),
}
ENDINGS = entries(
    """
    And from that day on, {hero} [never forgot {friend}|was a little wiser|kept the {thing} close].
    [That night|In the evening], {hero} [slept well|dreamed of {place}|looked at the stars and was happy].
    And they lived happily for many years.
    {hero} [learned|understood] that [a good friend is worth more than gold|small steps lead far|it is good to ask
        for help|patience is a kind of strength|what we share grows bigger].
    It was [late|dark] when they came home, but nobody was tired.
    People in {home_short} still tell this story today.
    The end.
    """
)
DESCRIPTIONS = entries(
    """
    {place} is [quiet|full of people|beautiful] in the [morning|evening|summer]. {weather_now} A old {work} sits on a
        bench and [eats {food}|reads a book|looks at the sky]. A {colour} {animal} [runs past|sleeps in the
        sun|waits for something to eat]. [Nobody is in a hurry|Time goes slowly here].
    {hero} is a {trait} {work}. {He} has [{colour} hair|kind eyes|a deep voice|strong hands] and always
        [wears|carries] a {colour2} [hat|coat|scarf]. [On Sundays|In the evening], {he} [likes to read|plays the
        flute|cooks {food} for {friend}]. {friend} says that {he} is [the most {trait2} person in
        {home_short}|{trait2}, too].
    The {thing} is {size} and {colour}. It [was made|was bought] by {hero}, a {work}, [many years ago|last winter].
        [There is a small mark on one side|It smells of wood|It feels warm in the hand]. {hero} keeps it {hiding},
        [so that nobody can find it|where it is safe].
    In the middle of the room stands a {colour} table. On the table there is a {thing}, and next to it [a cup of
        tea|a plate with {food}|a {colour2} lamp]. [The window is open|The door is closed]. {weather_now} A {animal}
        [sleeps|sits] under the table.
    {hero} lives {home}. The house has {n1} rooms and a {colour} door. In the garden grow {plants}. [From the
        window|From the roof] one can see {place}. [{hero} likes it there|It is small, but it is enough].
    Dear {hero}, // Thank you for the {thing}. It is {size} and {colour}, and I like it very much. [Yesterday|Last
        week] I was at {place} with {friend}. {weather} We [ate {food}|talked about you|saw a {animal}]. [I hope to
        see you soon|Please write to me soon]. // Your friend
    [To make {food}, you need time and patience|How to wrap a {thing}|A plan for a good day]. First, [wash your
        hands|clear the table]. Then [take what you need|read the whole plan]. After that, [do one step at a
        time|work slowly]. [Finally|At the end], [clean the kitchen|share it with a friend|rest a little].
    [The quick brown fox jumps over the lazy dog|A {colour} {animal} jumps over the {size} {thing}]. [The dog does
        not mind|{hero} looks up and laughs]. {weather_now} [It is an ordinary day|Nothing else happens].
    """
)
DIALOGUE_LINES = exchanges(
    """
    "Where is {place}?" asked {hero}. => "[Go straight on and turn left|It is behind the hill|It is not far]," said
        {friend}.
    "What is in the [box|basket|letter]?" asked {hero}. => "[Nothing at all|Only some {food}|That is a
        secret]," said {friend}.
    "[Shall|Can] we go to {place}?" asked {friend}. => "[Yes, let us go|Not today|Only if it does not rain]," said
        {hero}.
    "I saw a {colour} {animal} [today|this morning]," said {friend}. => "[Really|Where was it]?" asked {hero}.
        "[Near {place}|In the garden]."
    "Are you [hungry|tired|cold]?" asked {hero}. => "[A little|Yes, very much|No, thank you]," {friend}
        [answered|said].
    "How many {plants} did you plant?" asked {friend}. => "I planted {n2}," said {hero}. "[And {n1} of them are
        growing|I
        counted them twice]."
    "[What time is it|Is it late]?" asked {hero}. => "It is {n1} o'clock," said {friend}. "[We have time|We must
        hurry]."
    "I want to learn {skill}," said {hero}. => "[I can teach you|It takes time]," said {friend}.
    "Do you remember the {work}?" asked {friend}. => "[Of course|Yes]," said {hero}. "[A very {trait} person|We met
        near {place}]."
    """
)

# ---------------------------------------------------------------------------------------------------------------- facts

CAPITALS = pairs(
    """
    France=Paris | Germany=Berlin | Italy=Rome | Spain=Madrid | Portugal=Lisbon | Japan=Tokyo | China=Beijing |
    India=New Delhi | Egypt=Cairo | Kenya=Nairobi | Canada=Ottawa | Mexico=Mexico City | Brazil=Brasilia |
    Argentina=Buenos Aires | Chile=Santiago | Peru=Lima | Norway=Oslo | Sweden=Stockholm | Finland=Helsinki |
    Denmark=Copenhagen | Poland=Warsaw | Austria=Vienna | Hungary=Budapest | Greece=Athens | Turkey=Ankara |
    Ireland=Dublin | Belgium=Brussels | the Netherlands=Amsterdam | Russia=Moscow | Ukraine=Kyiv |
    Iceland=Reykjavik | Cuba=Havana | Australia=Canberra | New Zealand=Wellington | South Korea=Seoul |
    Thailand=Bangkok | Vietnam=Hanoi | Morocco=Rabat | Ghana=Accra | England=London | Scotland=Edinburgh |
    the United States=Washington
    """
)
OPPOSITES = pairs(
    """
    hot=cold | big=small | up=down | day=night | fast=slow | old=new | happy=sad | light=dark | open=closed |
    full=empty | left=right | early=late | loud=quiet | strong=weak | wet=dry | high=low | long=short |
    easy=difficult | near=far | first=last | begin=end | thick=thin | clean=dirty | soft=hard | rich=poor |
    young=old | black=white | true=false | inside=outside | push=pull
    """
)
SOUNDS = pairs(
    """
    dog=barks | cat=meows | cow=moos | duck=quacks | sheep=bleats | horse=neighs | owl=hoots | frog=croaks |
    mouse=squeaks | lion=roars | bee=buzzes | crow=caws | goose=honks | pig=grunts | wolf=howls
    """
)
COLOUR_OF = pairs(
    """
    the sky=blue on a clear day | grass=green | snow=white | a lemon=yellow | a tomato=red when it is ripe |
    coal=black | a carrot=orange | the sea=blue or green | a banana=yellow | a strawberry=red | milk=white |
    a crow=black | an elephant=grey | chocolate=brown | a pumpkin=orange |
    the sun=yellow when it is high and red when it sets | a plum=purple | a frog=often green | a fox=often red
    """
)
# A subject, and sentences that are true of it.
FACTS = facts(
    """
    the sun = The sun is a star. | It gives us light and warmth. | The earth goes around it once a year.
    the moon = The moon goes around the earth. | It takes about a month. | Its light comes from the sun.
    the earth = The earth is a planet. | Most of it is covered with water. | It turns once a day.
    water = Water is a clear liquid. | It freezes at zero degrees and boils at one hundred. | All living things need
        it.
    ice = Ice is frozen water. | It is lighter than water, so it floats. | It melts when it gets warm.
    rain = Rain is water that falls from clouds. | It fills the rivers and waters the plants.
    a cloud = A cloud is made of tiny drops of water. | The wind carries it across the sky.
    a rainbow = A rainbow appears when the sun shines through rain. | It has many colours, from red to violet.
    a river = A river carries water from the mountains to the sea. | Many towns are built beside rivers.
    a mountain = A mountain is a very high hill. | The air is cold and thin at the top.
    a volcano = A volcano is a mountain that can throw out hot rock. | The hot rock is called lava.
    a tree = A tree is a tall plant with a trunk. | Its roots drink water from the ground. | Its leaves make food
        from light.
    a bee = A bee is an insect with wings. | It collects nectar from flowers. | Bees make honey.
    a cat = A cat is a small animal with soft fur. | It sleeps a lot and hunts mice. | A young cat is called a
        kitten.
    a dog = A dog is an animal that lives with people. | It has a very good nose. | A young dog is called a puppy.
    a whale = A whale is the largest animal in the sea. | It is not a fish, because it breathes air.
    an owl = An owl is a bird that hunts at night. | It can see in the dark and turn its head very far.
    a horse = A horse is a strong animal with four legs. | It can run fast and carry a rider.
    a spider = A spider has eight legs. | Many spiders make webs to catch insects.
    bread = Bread is made from flour, water and salt. | Yeast makes it rise. | It is baked in a hot oven.
    honey = Honey is a sweet food that bees make. | It is golden and thick.
    cheese = Cheese is made from milk. | There are many kinds of cheese, and some are very old.
    a book = A book is a set of pages with words. | People read books to learn and to enjoy stories.
    a library = A library is a place that keeps many books. | You can borrow a book and bring it back later.
    music = Music is sound that is put in order. | People sing it or play it on instruments.
    a clock = A clock shows the time. | An hour has sixty minutes, and a minute has sixty seconds.
    a compass = A compass is a tool that points to the north. | Sailors use it to find their way.
    a bridge = A bridge helps people cross a river or a road. | It can be made of wood, stone or steel.
    a train = A train runs on rails. | It carries many people from one station to another.
    a lighthouse = A lighthouse is a tower with a bright light. | It shows ships where the rocks are.
    a computer = A computer is a machine that follows instructions. | It works with numbers very quickly.
    a relay race = A relay race is a race for a team of runners. | Each runner runs one part and passes the baton to
        the next. | The team must carry the baton from the start to the finish. | A good pass is smooth, and nobody
        stops running. | If the baton falls, the team loses time.
    a baton = A baton is a short stick that runners carry in a relay race. | One runner passes it to the next
        without stopping. | Only one runner holds it at a time. | A conductor also uses a baton to lead an
        orchestra.
    a language model = A language model is a program that has learned from text. | It reads some words and predicts
        the next one. | A large model can write stories and answer questions.
    a token = A token is a small piece of text, such as a word or a part of a word. | A model reads and writes
        tokens.
    a cache = A cache keeps results, so that they need not be computed again. | It makes a program faster but needs
        memory.
    prefill = Prefill is the first part of answering a request. | The model reads the whole prompt at once.
    decoding = Decoding is the second part of answering a request. | The model writes one token after another.
    a router = A router takes requests and sends each one to the right worker. | It looks for a worker that has
        room.
    a handover = A handover gives a request from one worker to another. | The new worker goes on where the old one
        stopped. | No word is lost, and no word is written twice.
    Baton = Baton is a system that serves language models on many machines. | Some workers read the prompt, and
        other workers write the answer. | A request is passed between them like a baton in a relay race.
    """
)

# ---------------------------------------------------------------------------------------------------------------- chats

STORY_STARTS = entries(
    """
    Here is a [short |]story about a {topic}.
    This is the story of a {topic}.
    [Of course|Gladly|Yes]! Here is a story about a {topic}.
    Let me tell you about a {topic}.
    """
)
REPEAT = exchanges(
    """
    [Repeat|Please repeat|Say]: {phrase} => {phrase}
    [Repeat after me|Say this after me]: {phrase} => {phrase}
    [Please say|Say|Write] the words "{phrase}". => {phrase}
    """
)
PHRASES = entries(
    """
    {name}, {name2}, {thing}, {animal}
    the {size} {thing} of {name}
    {colour}, {colour2}, {thing}
    {name} likes {food}
    a {colour} {animal} and a {size} {thing}
    {n1}, {n2}, {animal}, {place}
    {name} went to {place} with {name2}
    {thing} {animal} {colour} {work} {thing2}
    """
)
READING = exchanges(
    """
    {name} has a {colour} {thing}. {name2} has a {size} {thing2}. What does {name2} have? =>
        {name2} has a {size} {thing2}.
    {name} has a {colour} {thing}. {name2} has a {size} {thing2}. What does {name} have? =>
        {name} has a {colour} {thing}.
    {name} has a {colour} {thing}. {name2} has a {size} {thing2}. Who has the {thing2}? => {name2} has the {thing2}.
    {name} has a {colour} {thing}. {name2} has a {size} {thing2}. Who has the {thing}? => {name} has the {thing}.
    {name} is a {work}, and {name2} is a {work2}. Who is the {work2}? => {name2} is the {work2}.
    {name} is a {work}, and {name2} is a {work2}. What is {name}? => {name} is a {work}.
    The {thing} is {hiding}. The {thing2} is {hiding2}. Where is the {thing}? => The {thing} is {hiding}.
    The {thing} is {hiding}. The {thing2} is {hiding2}. Where is the {thing2}? => The {thing2} is {hiding2}.
    {name} went to {place} and ate {food}. Where did {name} go? => {name} went to {place}.
    {name} went to {place} and ate {food}. What did {name} eat? => {name} ate {food}.
    """
)
NAMES = exchanges(
    """
    [My name is|I am|Hello, I am|Hi, my name is|Hello! My name is] {name}. =>
        [Hello|Hi], {name}! [Nice to meet you.|How are you, {name}?|What can I do for you, {name}?]
    [My name is|I am] {name}. What is my name? => Your name is {name}.
    I am {name}, and I like {food}. => [Hello, {name}!|That is nice, {name}.] {food} sounds good to me.
    I am {name}, and I have a {colour} {animal}. =>
        [Hello, {name}!|That is nice, {name}.] A {colour} {animal} must be a good friend.
    I am a {work}. => [It is good to be a {work}.|A {work} has much to do.] Do you like your work?
    I like {place}. => I have never been to {place}, but I have read about it.
    """
)
WHO_ARE_YOU = choices(
    """
    Who are you? | What are you? | What is your name? | Tell me about yourself. | Are you a robot? |
    Who am I talking to? | Can you introduce yourself?
    """
)
I_AM = entries(
    """
    I am baton-tiny, [a very small|the small] language model that comes with Baton. [I can tell stories, answer
        simple questions and chat a little.|I like short stories and simple questions.|I know only a few things, but
        I try to be helpful.]
    My name is baton-tiny. I am a [small|tiny] language model, and I [run|live] in a system called Baton. [How can I
        help you?|What would you like to talk about?]
    I am a small program that writes text, one token at a time. People call me baton-tiny. [Ask me for a story if
        you like.|]
    """
)
SYSTEM_PROMPTS = entries(
    """
    You are a [helpful|friendly|kind|polite|careful] assistant.
    You are baton-tiny, a small language model.
    Answer [briefly|in short sentences|clearly and politely].
    You [tell stories to|talk with|teach] children.
    You are a [helpful|friendly] assistant. Answer [briefly|clearly|in one sentence].
    """
)
SMALL_TALK = exchanges(
    """
    [Hello|Hi|Hey|Hello there|Good day][!|.|] => [Hello|Hi|Hello there]! [How can I help you today?|How are
        you?|What would you like to talk about?|It is nice to meet you.]
    Good morning[!|.|] => Good morning! [I hope you slept well.|How can I help you today?|It is a fine day for a
        story.]
    Good evening[!|.|] => Good evening! [How was your day?|What can I do for you?]
    [How are you|How are you today|How do you do|How is it going]? => [I am well, thank you|I am fine, thank
        you|Very well, thank you]. [And how are you?|How can I help you?|What shall we talk about?]
    [I am fine|I am well|I am good], thank[s| you]. => [I am glad to hear that|That is good to hear]. [What would
        you like to do?|Would you like a story?]
    [Thank you|Thanks|Thank you very much|Thanks a lot][!|.|] => You are welcome! [Is there anything else?|I was
        glad to help.|Come back any time.]
    [Goodbye|Bye|Good night|See you later][!|.|] => [Goodbye|See you soon|Take care]! [It was nice to talk to
        you.|Have a good day.|Come back soon.]
    [I am sad|I feel sad|I am tired|I had a bad day][ today|]. => I am sorry to hear that. [Rest a little, and drink
        something warm.|Would a story help?|Tomorrow may be a better day.]
    [I am bored|I have nothing to do]. => [Then let me tell you a story|You could read a book, draw a picture or go
        for a walk]. [What do you like?|What about a walk in the park?]
    [What can you do|What are you able to do|How can you help me|Help|Can you help me]? => [I can tell short
        stories, count, name colours and capitals, and answer simple questions.|I can tell you a story about an
        animal or a thing, and I can answer small questions.] [What would you like?|Just ask me.|Shall I begin with
        a story?]
    [Do you sleep|Do you eat|Do you dream|Can you see me]? => No, I [do not|cannot]. I am a language model, and I
        only [read and write words|know text].
    [Are you happy|Do you have feelings]? => I am a small language model, so I do not feel things as people do. But
        I am here to talk to you.
    What is your favourite colour? => I like {colour}. It makes me think of {colour_thing}. What is your favourite
        colour?
    What is your favourite animal? => I like the {animal}, because it is [clever|quiet|friendly|brave|funny]. And
        you?
    What is your favourite food? => I cannot eat, but {food} sounds [good|very good] to me. What do you like to eat?
    [Tell me a joke|Do you know a joke|Make me laugh]. => [Why did the clock go to school? Because it wanted to be
        on time.|What has hands but cannot clap? A clock.|Why did the runner bring a baton to dinner? In case
        someone wanted to pass the bread.|What has many teeth but cannot bite? A comb.|Why was the book so warm? It
        had a thick jacket.]
    Who made you? => I was made for Baton and trained on simple stories and small conversations. I am [very|quite]
        small.
    [Where do you live|Where are you]? => I live in the memory of a computer. Baton [carries|passes] my work from
        one machine to another.
    [How old are you]? => I do not have an age as people do. I am a [small|young] language model.
    """
)
