"""The synthetic English that the bundled model is trained on: stories, facts, descriptions and chats.

Everything is made here from word lists and templates. A template holds alternatives in square brackets, `[a|b|c]`,
which may nest and of which one is drawn, and slots in braces, `{hero}`, which are filled from a dictionary. A beat that
starts with `?` is left out two times in five. The same seed always makes the same text.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

END_OF_TEXT = "<|endoftext|>"
USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL_TOKENS = (END_OF_TEXT, USER, ASSISTANT, SYSTEM, END)

# ---------------------------------------------------------------------------------------------------------- word lists

GIRLS = """Anna Mira Lucy Nora Ella Rosa Hana Tess Ivy Maya Clara Lena Zoe Alice Ruth Wren June Olive Sara Kate Amina Freya
Greta Iris Leila Mina Petra Yuki""".split()
BOYS = """Tom Ben Leo Sam Omar Finn Jack Max Theo Noah Hugo Eli Paul Ravi Luke Oscar Amir Peter Kenji Jonas Milo Felix Henry
Marco Owen Pablo Simon Walter""".split()
WORKS = """baker farmer teacher fisher gardener painter carpenter doctor sailor librarian tailor potter clockmaker
musician beekeeper shepherd postman cook builder runner""".split()
TRAITS = """kind brave curious quiet cheerful clever patient gentle careful honest proud shy busy friendly thoughtful stubborn
hopeful playful""".split()
COLOURS = "red blue green yellow white black brown silver golden grey orange purple pink".split()
SIZES = ["small", "little", "big", "tiny", "old", "new", "shiny", "heavy", "light", "round", "beautiful", "strange", "simple"]
GOALS = ["the old castle", "the sea", "the highest mountain", "the end of the river", "the great city", "the northern lights"]
OUTSIDE = """in the tall grass|under a pile of leaves|near the well|between two stones|below a wooden bench|behind an old wall|
under a bush|beside the road|at the foot of a tree|in the mud""".replace("\n", "").split("|")
THINGS = """key map lantern kite book drum hat box bell ring compass flute boat clock coin basket blanket pencil
scarf mirror ball whistle candle feather letter button cup ladder rope spoon stone flag baton""".split()
ANIMALS = """dog cat fox rabbit owl horse duck goat mouse bear squirrel turtle hedgehog crow frog sheep donkey goose otter
deer robin badger""".split()
FOODS = ["bread", "soup", "apple pie", "cheese", "honey cake", "warm milk", "pancakes", "plum jam", "rice", "fresh berries"]
PLANTS = ["roses", "tomatoes", "sunflowers", "beans", "apple trees", "carrots", "tulips", "pumpkins", "herbs", "strawberries"]
HOMES = """in a small village by the sea|in a quiet town near the mountains|in a little house at the edge of the forest|in a tall house on a busy street|
in a wooden cabin by the lake|in a farm behind the hill|in an old mill beside the river|in a village in a green valley|
in a city with many bridges|on an island far from the coast|in a small room above the bakery""".replace(
    "\n", ""
).split("|")
PLACES = """the forest|the market|the river|the beach|the old bridge|the library|the school|the hill|the garden|the harbour|
the lake|the mill|the station|the park|the castle|the meadow|the lighthouse|the village square|the cave|the orchard""".replace(
    "\n", ""
).split("|")
HIDING = """under the bed|behind the door|in the tall grass|under a pile of leaves|inside an old box|near the well|
on top of the cupboard|between two stones|below the wooden bench|at the bottom of the basket|beside the garden gate""".replace(
    "\n", ""
).split("|")
SKILLS = """to swim|to bake bread|to play the flute|to ride a horse|to draw birds|to read old maps|to sail a boat|to juggle|
to whistle|to run a long way|to grow tomatoes|to mend a clock|to sing in tune|to tie strong knots""".replace("\n", "").split("|")
TIMES = """One morning|One evening|One day|On a [cold|warm|bright|grey|windy|quiet|rainy|sunny] [morning|afternoon|evening|day]|
Early in the morning|Late in the afternoon|On the first day of [spring|summer|autumn|winter]|Last [spring|summer|autumn|winter]|
On a [Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday] in [March|April|May|June|July|October|November]""".replace("\n", "")
LATER = """The next [morning|day]|A few days later|[That|The same] [evening|afternoon]|A week later|Some time later|
The following [week|spring|summer|winter]|Two days after that|Not long after""".replace("\n", "")
WEATHER = """The sun was [warm|bright] and the [sky|air] was clear.|A [soft|cold|gentle] wind blew [from the sea|over the hills|
through the trees].|It was raining, and the streets were [wet|empty|quiet].|The [snow|frost] lay [white|thick] on the roofs.|
The clouds were [low|grey|dark], but it did not rain.|The birds were singing in the trees.|
The leaves were turning [red|yellow|brown].|The [moon|first star] was [bright|shining] above the [hills|roofs|water].|
The air smelled of [rain|flowers|bread|the sea|wood smoke].""".replace("\n", "")

NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CAPITALS = dict(
    pair.split("=")
    for pair in """France=Paris|Germany=Berlin|Italy=Rome|Spain=Madrid|Portugal=Lisbon|Japan=Tokyo|China=Beijing|India=New Delhi|
Egypt=Cairo|Kenya=Nairobi|Canada=Ottawa|Mexico=Mexico City|Brazil=Brasilia|Argentina=Buenos Aires|Chile=Santiago|Peru=Lima|
Norway=Oslo|Sweden=Stockholm|Finland=Helsinki|Denmark=Copenhagen|Poland=Warsaw|Austria=Vienna|Hungary=Budapest|Greece=Athens|
Turkey=Ankara|Ireland=Dublin|Belgium=Brussels|the Netherlands=Amsterdam|Russia=Moscow|Ukraine=Kyiv|Iceland=Reykjavik|Cuba=Havana|
Australia=Canberra|New Zealand=Wellington|South Korea=Seoul|Thailand=Bangkok|Vietnam=Hanoi|Morocco=Rabat|Ghana=Accra|
England=London|Scotland=Edinburgh|the United States=Washington""".replace("\n", "").split("|")
)
OPPOSITES = dict(
    pair.split("=")
    for pair in """hot=cold|big=small|up=down|day=night|fast=slow|old=new|happy=sad|light=dark|open=closed|full=empty|left=right|
early=late|loud=quiet|strong=weak|wet=dry|high=low|long=short|easy=difficult|near=far|first=last|begin=end|
thick=thin|clean=dirty|soft=hard|rich=poor|young=old|black=white|true=false|inside=outside|push=pull""".replace("\n", "").split("|")
)
SOUNDS = dict(
    pair.split("=")
    for pair in """dog=barks|cat=meows|cow=moos|duck=quacks|sheep=bleats|horse=neighs|owl=hoots|frog=croaks|mouse=squeaks|
lion=roars|bee=buzzes|crow=caws|goose=honks|pig=grunts|wolf=howls""".replace("\n", "").split("|")
)
COLOUR_OF = dict(
    pair.split("=")
    for pair in """the sky=blue on a clear day|grass=green|snow=white|a lemon=yellow|a tomato=red when it is ripe|coal=black|
a carrot=orange|the sea=blue or green|a banana=yellow|a strawberry=red|milk=white|a crow=black|an elephant=grey|chocolate=brown|
a pumpkin=orange|the sun=yellow when it is high and red when it sets|a plum=purple|a frog=often green|a fox=often red""".replace(
        "\n", ""
    ).split("|")
)
# A subject, what it is, and sentences that are true of it.
FACTS: dict[str, tuple[str, ...]] = {
    "the sun": ("The sun is a star.", "It gives us light and warmth.", "The earth goes around it once a year."),
    "the moon": ("The moon goes around the earth.", "It takes about a month.", "Its light comes from the sun."),
    "the earth": ("The earth is a planet.", "Most of it is covered with water.", "It turns once a day."),
    "water": ("Water is a clear liquid.", "It freezes at zero degrees and boils at one hundred.", "All living things need it."),
    "ice": ("Ice is frozen water.", "It is lighter than water, so it floats.", "It melts when it gets warm."),
    "rain": ("Rain is water that falls from clouds.", "It fills the rivers and waters the plants."),
    "a cloud": ("A cloud is made of tiny drops of water.", "The wind carries it across the sky."),
    "a rainbow": ("A rainbow appears when the sun shines through rain.", "It has many colours, from red to violet."),
    "a river": ("A river carries water from the mountains to the sea.", "Many towns are built beside rivers."),
    "a mountain": ("A mountain is a very high hill.", "The air is cold and thin at the top."),
    "a volcano": ("A volcano is a mountain that can throw out hot rock.", "The hot rock is called lava."),
    "a tree": ("A tree is a tall plant with a trunk.", "Its roots drink water from the ground.", "Its leaves make food from light."),
    "a bee": ("A bee is an insect with wings.", "It collects nectar from flowers.", "Bees make honey."),
    "a cat": ("A cat is a small animal with soft fur.", "It sleeps a lot and hunts mice.", "A young cat is called a kitten."),
    "a dog": ("A dog is an animal that lives with people.", "It has a very good nose.", "A young dog is called a puppy."),
    "a whale": ("A whale is the largest animal in the sea.", "It is not a fish, because it breathes air."),
    "an owl": ("An owl is a bird that hunts at night.", "It can see in the dark and turn its head very far."),
    "a horse": ("A horse is a strong animal with four legs.", "It can run fast and carry a rider."),
    "a spider": ("A spider has eight legs.", "Many spiders make webs to catch insects."),
    "bread": ("Bread is made from flour, water and salt.", "Yeast makes it rise.", "It is baked in a hot oven."),
    "honey": ("Honey is a sweet food that bees make.", "It is golden and thick."),
    "cheese": ("Cheese is made from milk.", "There are many kinds of cheese, and some are very old."),
    "a book": ("A book is a set of pages with words.", "People read books to learn and to enjoy stories."),
    "a library": ("A library is a place that keeps many books.", "You can borrow a book and bring it back later."),
    "music": ("Music is sound that is put in order.", "People sing it or play it on instruments."),
    "a clock": ("A clock shows the time.", "An hour has sixty minutes, and a minute has sixty seconds."),
    "a compass": ("A compass is a tool that points to the north.", "Sailors use it to find their way."),
    "a bridge": ("A bridge helps people cross a river or a road.", "It can be made of wood, stone or steel."),
    "a train": ("A train runs on rails.", "It carries many people from one station to another."),
    "a lighthouse": ("A lighthouse is a tower with a bright light.", "It shows ships where the rocks are."),
    "a computer": ("A computer is a machine that follows instructions.", "It works with numbers very quickly."),
    "a relay race": (
        "A relay race is a race for a team of runners.",
        "Each runner runs one part and passes the baton to the next.",
        "The team must carry the baton from the start to the finish.",
        "A good pass is smooth, and nobody stops running.",
        "If the baton falls, the team loses time.",
    ),
    "a baton": (
        "A baton is a short stick that runners carry in a relay race.",
        "One runner passes it to the next without stopping.",
        "Only one runner holds it at a time.",
        "A conductor also uses a baton to lead an orchestra.",
    ),
    "a language model": (
        "A language model is a program that has learned from text.",
        "It reads some words and predicts the next one.",
        "A large model can write stories and answer questions.",
    ),
    "a token": ("A token is a small piece of text, such as a word or a part of a word.", "A model reads and writes tokens."),
    "a cache": ("A cache keeps results, so that they need not be computed again.", "It makes a program faster but needs memory."),
    "prefill": ("Prefill is the first part of answering a request.", "The model reads the whole prompt at once."),
    "decoding": ("Decoding is the second part of answering a request.", "The model writes one token after another."),
    "a router": ("A router takes requests and sends each one to the right worker.", "It looks for a worker that has room."),
    "a handover": (
        "A handover gives a request from one worker to another.",
        "The new worker goes on where the old one stopped.",
        "No word is lost, and no word is written twice.",
    ),
    "Baton": (
        "Baton is a system that serves language models on many machines.",
        "Some workers read the prompt, and other workers write the answer.",
        "A request is passed between them like a baton in a relay race.",
    ),
}
UNKNOWN = """quantum physics|stock prices|ancient history|chess openings|tax law|rocket engines|modern art|medicine|football results|
programming|politics|deep sea fishing|opera|philosophy|algebra|economics|video games|cars|the news|geology|chemistry|
the weather tomorrow|film stars|the stars of other galaxies|machine learning""".replace("\n", "").split("|")

# --------------------------------------------------------------------------------------------------------------- plots

OPENINGS = (
    "Once upon a time, there was [a {trait} {work}|a {trait} {girl_boy}|a {trait} young {work}] called {hero}.",
    "Once upon a time, {hero} lived {home}.",
    "There was once a {trait} {work} named {hero} who lived {home}.",
    "{hero} was a {trait} {work} who lived {home}.",
    "{hero} and {friend} were good friends. They lived {home}.",
    "{home} lived a {trait} {work}. {His} name was {hero}.",
    "A long time ago, a {trait} {work} called {hero} lived {home}.",
    "{hero} had always lived {home}, and {he} knew everyone there.",
)
TRAIT_LINES = (
    "?{He} was [also|always|rather|often] {trait2}, and [people|the neighbours|the children] liked {him} [for it|very much].",
    "?{He} had a {colour} {animal} that [followed {him} everywhere|slept by the fire|liked to eat {food}].",
    "?{His} best friend was {friend}, a {trait3} {work2}.",
    "?Every [morning|evening|Sunday], {he} [walked to {place}|ate some {food}|sat by the window and [read|sang|drew]].",
)
PLOTS: dict[str, tuple[str, ...]] = {
    "lost": (
        "{time}, {hero} [could not find|lost|noticed that {he} had lost] {his} {size} {thing}.",
        "?{He} [felt sad|was worried], because [it had belonged to {his} [grandmother|grandfather|mother|father]|{he} loved it very much].",
        "{He} looked {hiding}, but it was not there. Then {he} looked {hiding2}, but [there was only dust|it was not there either].",
        '"[Have you seen my {thing}|Do you know where my {thing} is]?" {he} asked {friend}.',
        '"[No, but I will help you|No, I have not, but let us look together|I think I saw it near {place}]," said {friend}.',
        "They [walked|went|ran] to {place} and [searched|looked] [everywhere|for a long time|until the sun went down].",
        "At last, [{friend}|{hero}|the {animal}] found the {thing} {outside}.",
        '{hero} [smiled|laughed|was very happy]. "Thank you," {he} said. "[I could not have done it alone|You are a true friend]."',
    ),
    "found": (
        "{time}, {hero} [was walking|went] to {place} [alone|with {friend}|with {his} {animal}].",
        "?{weather}",
        "There, {outside}, {he} saw a {size} {colour} {thing}.",
        "{He} picked it up and [looked at it closely|turned it in {his} hands|cleaned it with {his} sleeve].",
        "?It was [heavier|lighter|older|warmer] than it looked.",
        '"[Who could have left this here?|Whose {thing} is this?|What a {size} {thing}!]" {he} [thought|said].',
        "{He} [showed it to|took it to|asked] {friend}, who [knew a lot about old things|was sitting by the fire|was working outside].",
        '"[It belongs to the {work2}|I lost it last winter|That is a very old {thing}]," said {friend}. "[You should keep it safe|'
        'We must give it back|I am glad that you found it]."',
        "So {hero} [brought it back to its owner|kept it safe on a shelf|put it in {his} pocket], and [{he} felt proud|everyone was glad|"
        "that night {he} slept well].",
    ),
    "learn": (
        "{time}, {hero} decided to learn {skill}.",
        "[It was not easy|It was harder than it looked|At first, nothing went well]. {He} tried [once|twice|three times], [but {he} failed|"
        "and each time something went wrong].",
        '"[I will never learn it|This is too difficult]," {he} [said|sighed].',
        '"[Do not give up|Try again tomorrow|Go slowly, and do one thing at a time]," said {friend}. "[Nobody is good on the first day|'
        'I also needed a long time|Every expert was a beginner once]."',
        "So {hero} practised every [day|morning|evening]. [{He} made small steps|{He} made many mistakes and learned from them].",
        "?{friend} [helped {him}|watched {him}|brought {him} some {food}] and [smiled|told {him} to rest].",
        "After [a week|a month|many weeks], {he} [could do it|was good at it]. [Everyone in {home_short} was surprised|{friend} clapped {fhis} hands].",
        "[{hero} was proud and happy|Now {he} teaches it to others|It was the best day of the year].",
    ),
    "race": (
        "{time}, there was a relay race [in the village square|around the lake|at the school|from {place} to the sea].",
        "{hero} ran for the {colour} team, together with {friend} and two others.",
        "?[The {colour2} team was very fast|Many people came to watch|{hero} was nervous, because {he} had never run before].",
        "{hero} [held the baton tightly|waited for the baton|took a deep breath] and ran as fast as {he} could.",
        "[Then {he} passed the baton to {friend}|{friend} held out {fhis} hand, and the baton passed from one hand to the other].",
        "[It almost fell, but {friend} held on|Neither of them stopped running|It was a perfect pass].",
        "[The {colour} team won by one step|The {colour} team came second, but nobody was sad|In the end, both teams crossed the line together].",
        '"[We did it together|A race is won by the whole team|Next year we will be even faster]," said {hero}.',
    ),
    "animal": (
        "{time}, {hero} [heard a strange sound|saw something move] near {place}.",
        "It was a [small|young|tired|hungry] {animal}. Its leg was hurt, and it [was cold|could not move|was afraid].",
        '"[Do not be afraid|You poor thing]," {he} said [softly|gently|quietly]. "[I will help you|Come with me]."',
        "{He} [wrapped it in a {colour} blanket|carried it home in a basket] and gave it some [water|food|milk].",
        "{friend} [came to help|brought clean cloth|knew what to do]. Together they [cared for it|watched over it] [all night|for many days].",
        "?{weather}",
        "[Slowly|Day by day], the {animal} grew strong again.",
        "[When spring came|One morning], it [ran|went] back to {place}. [But it often came to visit|It turned around once, as if to say thank you].",
    ),
    "storm": (
        "{time}, dark clouds came over {place}, and [the wind grew strong|it began to rain].",
        "{hero} was [on the road|in a small boat|far from home] with [{friend}|{his} {animal}].",
        '"[We must find shelter|Quick, this way|Stay close to me]," {he} [called|cried].',
        "They found [an old barn|a dry cave|an empty hut|a house with a light in the window] and [went inside|ran to the door].",
        "[Inside it was warm|There was a small fire|They lit a candle], and they [shared some {food}|told stories|listened to the rain].",
        "?[The thunder was loud|The wind shook the walls], but they were [not afraid|safe].",
        "In the morning, the storm was over. {weather}",
        "[They walked home together|They thanked the old {work2} and went home|The world looked clean and new].",
    ),
    "gift": (
        "{time}, it was the birthday of {friend}. {hero} wanted to [give|make] {fhim} a [special|fine|good] gift.",
        "{He} had [no money|only one coin|little time], so {he} [thought for a long while|asked the {work2} for advice].",
        "[Then {he} had an idea|At last {he} knew what to do]. {He} [built|made|painted] a {size} {colour} {thing} [with {his} own hands|]."
        " It took {him} [the whole night|three days|all morning].",
        '"[This is for you|Happy birthday]," said {hero}.',
        "{friend} [opened it slowly|looked at it for a long time] and [smiled|could not speak|laughed with joy].",
        '"[It is the best gift of all|Nobody has ever given me such a {thing}]," {fhe} said.',
        "[They ate {food} together|They sat together until it was dark], and it was a [happy|wonderful|good] day.",
    ),
    "garden": (
        "{time}, {hero} [planted|wanted to grow] {plants} in the garden [behind the house|near {place}].",
        "{He} [dug the ground|cleared the stones] and put the seeds [in the earth|in long rows].",
        "Every day {he} gave them water. [But nothing happened|For a long time, nothing could be seen].",
        '"[Are the seeds bad|Why does nothing grow]?" {he} asked {friend}.',
        '"[You must be patient|Plants need time, and so do people|Wait for the rain]," said {friend}.',
        "?{weather}",
        "Then, one [morning|day], the first green leaves [came out of the ground|were there].",
        "By [summer|autumn], the garden was full of {plants}. {hero} [gave some to every neighbour|sold them at the market|"
        "made a big dinner for {his} friends].",
    ),
    "market": (
        "{time}, {hero} went to the market to buy {food}.",
        "The market was full of [people|colours and voices]. [One man sold {plants}|A woman sold {colour} scarves], and another sold [clocks|fish|drums].",
        "{hero} had {n1} coins. The {thing} that {he} liked cost {n2} coins.",
        '"[That is too much for me|I do not have enough]," said {hero}.',
        '"[Help me carry these boxes, and it is yours|Give me what you have, and tell me a good story]," said the seller.',
        "[So {hero} did it gladly|{hero} agreed at once], and [soon|an hour later] {he} walked home with the {size} {thing}.",
        "?{friend} was waiting at the [door|gate|bridge] and asked what {he} had bought. {hero} [only smiled|told {fhim} everything|"
        "showed it to {fhim}], and [they both laughed|they went in together].",
    ),
    "journey": (
        "{time}, {hero} [left home|packed a bag|set out] to [find|see] {goal}.",
        "{He} took [a {thing}|some {food} and a {thing}|only a {colour} coat and a map].",
        "On the way {he} met {friend}, who was [also on the road|resting under a tree|carrying a heavy bag].",
        '"Where are you going?" asked {friend}. "To {goal}," said {hero}. "[May I come with you?|Then we have the same way,]" said {friend}.',
        "They walked for {n1} days. They crossed [a river|two hills|a wide field] and slept [under the stars|in a barn|beside a small fire].",
        "?{weather}",
        "[When they came to {goal}|At the end of the road], they saw [how beautiful it was|more than they had hoped for].",
        "[They stayed until winter|They built a small house there|Then they went home and told everyone about it].",
    ),
    "secret": (
        "{time}, {friend} gave {hero} [an old letter|a {colour} box|a {size} {thing}] and said, \"[Do not open it yet|Keep it until I come back].\"",
        "{hero} [wanted to know|could not stop thinking about] what it meant.",
        "{He} put it {hiding} and [waited|tried to forget it].",
        "[Days passed|A month went by], and {he} [kept {his} word|did not look].",
        "[When {friend} came back|At last {friend} returned], {fhe} asked, \"Did you [open it|look]?\" \"No,\" said {hero}. \"[I promised|A promise is a promise].\"",
        "{friend} smiled. [Inside was a map of {place}|Inside was a golden key|It was a gift for {hero}].",
        '"[I wanted to give it to someone I can trust|Now it is yours]," {fhe} said.',
    ),
    "quarrel": (
        "{time}, {hero} and {friend} [had a quarrel|were angry with each other] about a {size} {thing}.",
        '"[It is mine|I saw it first|You broke it]," said {hero}. "[That is not true|No, it is mine|It was not me]," said {friend}.',
        "They [did not speak|walked home alone|stayed away from each other] for {n1} days.",
        "{hero} [missed {his} friend|felt lonely|could not sleep]. [Even {food} did not taste good|The house was too quiet].",
        "So {he} went to {place}, where {friend} [was sitting|was looking at the water].",
        '"I am sorry," said {hero}. "[A friend is worth more than a {thing}|I was wrong]." "[I am sorry too|So was I]," said {friend}.',
        "[Then they laughed|They shared some {food}], and from that day they [shared the {thing}|never fought again].",
    ),
    "repair": (
        "{time}, the [old clock|wooden bridge|mill wheel|village bell|lamp of the lighthouse] [stopped working|broke].",
        "[Nobody knew what to do|The people were worried]. {hero} said that {he} would [try to repair it|look at it].",
        "{He} [climbed up|opened it|looked inside] with a {thing} in {his} hand and saw that [a small part was missing|one piece was broken].",
        "{friend} [made a new part from wood|brought the right tools|held the light].",
        "They worked [all night|for {n1} hours|until their hands were tired].",
        "?\"[Does it turn now|Is it ready]?\" asked {friend}. \"[Almost|One more turn],\" said {hero}.",
        "In the end, it worked [again|better than before]. The people [cheered|came out of their houses|thanked them with {food}].",
    ),
}
ENDINGS = (
    "And from that day on, {hero} [never forgot {friend}|was a little wiser|kept the {thing} close].",
    "[That night|In the evening], {hero} [slept well|dreamed of {place}|looked at the stars and was happy].",
    "And they lived happily for many years.",
    "{hero} [learned|understood] that [a good friend is worth more than gold|small steps lead far|it is good to ask for help|"
    "patience is a kind of strength|what we share grows bigger].",
    "It was [late|dark] when they came home, but nobody was tired.",
    "People in {home_short} still tell this story today.",
    "The end.",
)

# --------------------------------------------------------------------------------------------------------- chat phrases

WHO_ARE_YOU = (
    "Who are you?",
    "What are you?",
    "What is your name?",
    "Tell me about yourself.",
    "Are you a robot?",
    "Who am I talking to?",
    "Can you introduce yourself?",
)
I_AM = (
    "I am baton-tiny, [a very small|the small] language model that comes with Baton. [I can tell stories, answer simple questions and chat a little.|"
    "I like short stories and simple questions.|I know only a few things, but I try to be helpful.]",
    "My name is baton-tiny. I am a [small|tiny] language model, and I [run|live] in a system called Baton. [How can I help you?|What would you like to talk about?]",
    "I am a small program that writes text, one token at a time. People call me baton-tiny. [Ask me for a story if you like.|]",
)
ABILITY = (
    "[I can tell short stories, count, name colours and capitals, and answer simple questions.|"
    "I can tell you a story about an animal or a thing, and I can answer small questions.] [What would you like?|Just ask me.|Shall I begin with a story?]",
)
SMALL_TALK: tuple[tuple[str, str], ...] = (
    (
        "[Hello|Hi|Hey|Hello there|Good day][!|.|]",
        "[Hello|Hi|Hello there]! [How can I help you today?|How are you?|What would you like to talk about?|It is nice to meet you.]",
    ),
    ("Good morning[!|.|]", "Good morning! [I hope you slept well.|How can I help you today?|It is a fine day for a story.]"),
    ("Good evening[!|.|]", "Good evening! [How was your day?|What can I do for you?]"),
    (
        "[How are you|How are you today|How do you do|How is it going]?",
        "[I am well, thank you|I am fine, thank you|Very well, thank you]. [And how are you?|How can I help you?|What shall we talk about?]",
    ),
    (
        "[I am fine|I am well|I am good], thank[s| you].",
        "[I am glad to hear that|That is good to hear]. [What would you like to do?|Would you like a story?]",
    ),
    (
        "[Thank you|Thanks|Thank you very much|Thanks a lot][!|.|]",
        "You are welcome! [Is there anything else?|I was glad to help.|Come back any time.]",
    ),
    ("[Goodbye|Bye|Good night|See you later][!|.|]", "[Goodbye|See you soon|Take care]! [It was nice to talk to you.|Have a good day.|Come back soon.]"),
    ("[I am sad|I feel sad|I am tired|I had a bad day][ today|].", "I am sorry to hear that. [Rest a little, and drink something warm.|Would a story help?|"
     "Tomorrow may be a better day.]"),
    ("[I am bored|I have nothing to do].", "[Then let me tell you a story|You could read a book, draw a picture or go for a walk]. [What do you like?|What about a walk in the park?]"),
    ("[What can you do|What are you able to do|How can you help me|Help|Can you help me]?", ABILITY[0]),
    ("[Do you sleep|Do you eat|Do you dream|Can you see me]?", "No, I [do not|cannot]. I am a language model, and I only [read and write words|know text]."),
    (
        "[Are you happy|Do you have feelings]?",
        "I am a small language model, so I do not feel things as people do. But I am here to talk to you.",
    ),
    ("What is your favourite colour?", "I like {colour}. It makes me think of {colour_thing}. What is your favourite colour?"),
    ("What is your favourite animal?", "I like the {animal}, because it is [clever|quiet|friendly|brave|funny]. And you?"),
    ("What is your favourite food?", "I cannot eat, but {food} sounds [good|very good] to me. What do you like to eat?"),
    ("[Tell me a joke|Do you know a joke|Make me laugh].", "[Why did the clock go to school? Because it wanted to be on time.|"
     "What has hands but cannot clap? A clock.|Why did the runner bring a baton to dinner? In case someone wanted to pass the bread.|"
     "What has many teeth but cannot bite? A comb.|Why was the book so warm? It had a thick jacket.]"),
    ("Who made you?", "I was made for Baton and trained on simple stories and small conversations. I am [very|quite] small."),
    ("[Where do you live|Where are you]?", "I live in the memory of a computer. Baton [carries|passes] my work from one machine to another."),
    ("[How old are you]?", "I do not have an age as people do. I am a [small|young] language model."),
)
SYSTEM_PROMPTS = (
    "You are a [helpful|friendly|kind|polite|careful] assistant.",
    "You are baton-tiny, a small language model.",
    "Answer [briefly|in short sentences|clearly and politely].",
    "You [tell stories to|talk with|teach] children.",
    "You are a [helpful|friendly] assistant. Answer [briefly|clearly|in one sentence].",
)


# -------------------------------------------------------------------------------------------------------------- grammar

_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!one\b|use|uni)")
_SENTENCE_START = re.compile(r'(^|[.!?]"? +"?|\n"?)([a-z])')


def expand(rng: random.Random, template: str, slots: dict[str, str] | None = None) -> str:
    """Draws the alternatives of `template`, innermost first, fills the slots, and repairs articles and capitals."""
    text = template
    for _ in range(2):  # a slot may itself hold alternatives
        while "[" in text:
            text = _ALTERNATIVES.sub(lambda match: rng.choice(match.group(1).split("|")), text)
        text = text.format_map(slots or {})
    text = _ARTICLE.sub(r"\1n ", " ".join(text.split(" ")).strip())
    return capitalised(re.sub(r"  +", " ", text))


def capitalised(text: str) -> str:
    """`text` with a capital at its start."""
    return text[:1].upper() + text[1:]


def kept(rng: random.Random, beats: tuple[str, ...]) -> Iterator[str]:
    """The beats that are told this time: those that start with `?` are left out two times in five."""
    for beat in beats:
        if not beat.startswith("?"):
            yield beat
        elif rng.random() < 0.6:
            yield beat[1:]


# -------------------------------------------------------------------------------------------------------------- stories


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in a story; `pronouns` are subject, object and possessive."""

    name: str
    pronouns: tuple[str, str, str]


def draw_people(rng: random.Random, count: int) -> list[Person]:
    """`count` persons with different names."""
    she, he = ("she", "her", "her"), ("he", "him", "his")
    everyone = [Person(name, she) for name in GIRLS] + [Person(name, he) for name in BOYS]
    return rng.sample(everyone, count)


def person_slots(hero: Person, friend: Person) -> dict[str, str]:
    """The slots for names and pronouns; those of the friend start with `f`."""
    slots = {"hero": hero.name, "friend": friend.name, "girl_boy": "girl" if hero.pronouns[0] == "she" else "boy"}
    for prefix, person in (("", hero), ("f", friend)):
        for slot, word in zip(("he", "him", "his"), person.pronouns, strict=True):
            slots[prefix + slot] = word
            slots[(prefix + slot).capitalize()] = word.capitalize()
    return slots


def scene_slots(rng: random.Random) -> dict[str, str]:
    """The slots for places, things and all else that may change from one scene to the next."""
    hiding, hiding2 = rng.sample(HIDING, 2)
    trait, trait2, trait3 = rng.sample(TRAITS, 3)
    work, work2 = rng.sample(WORKS, 2)
    colour, colour2 = rng.sample(COLOURS, 2)
    few = rng.randrange(2, 9)
    return {
        "place": rng.choice(PLACES), "thing": rng.choice(THINGS), "animal": rng.choice(ANIMALS), "size": rng.choice(SIZES),
        "food": rng.choice(FOODS), "plants": rng.choice(PLANTS), "skill": rng.choice(SKILLS), "time": f"[{TIMES}]",
        "weather": f"[{WEATHER}]", "hiding": hiding, "hiding2": hiding2, "trait": trait, "trait2": trait2, "trait3": trait3, "outside": rng.choice(OUTSIDE), "goal": rng.choice(GOALS),
        "work": work, "work2": work2, "colour": colour, "colour2": colour2,
        "n1": NUMBERS[few], "n2": NUMBERS[few + rng.randrange(1, 9)],
    }  # fmt: skip


def make_story(rng: random.Random, scenes: int = 1, topic: str | None = None) -> str:
    """A story of `scenes` scenes, one paragraph each, about the same two people; `topic` is an animal or a thing in it."""
    hero, friend = draw_people(rng, 2)
    home = rng.choice(HOMES)
    slots = person_slots(hero, friend) | scene_slots(rng) | {"home": home, "home_short": short_home(home)}
    fixed = topic_slots(topic)
    opening = [rng.choice(OPENINGS)]
    if "{friend}" not in opening[0]:
        opening += kept(rng, rng.choice((TRAIT_LINES, TRAIT_LINES[:2], ())))
    paragraphs = []
    for index, plot in enumerate(draw_plots(rng, scenes, topic)):
        if index:
            slots = slots | scene_slots(rng) | {"time": f"[{LATER}]"}
        beats = [*(opening if index == 0 else ()), *kept(rng, PLOTS[plot])]
        if index == scenes - 1 and rng.random() < 0.8:
            beats.append(rng.choice(ENDINGS))
        paragraphs.append(" ".join(expand(rng, beat, slots | fixed) for beat in beats))
    return "\n\n".join(paragraphs)


def short_home(home: str) -> str:
    """How people call a home that was described at length: "a quiet town near the mountains" is "the town"."""
    for word in ("village", "town", "farm", "city", "island", "valley"):
        if word in home:
            return f"the {word}"
    return "the neighbourhood"


def topic_slots(topic: str | None) -> dict[str, str]:
    """The slots that `topic` fixes for a whole story."""
    if topic is None:
        return {}
    return {"animal" if topic in ANIMALS else "thing": topic}


def draw_plots(rng: random.Random, count: int, topic: str | None) -> list[str]:
    """The plots of a story, the first of them one in which `topic` appears."""
    if topic is None:
        first = rng.choice(list(PLOTS))
    elif topic in ANIMALS:
        first = "animal"
    else:
        first = rng.choice(("lost", "found", "gift", "market", "quarrel"))
    others = [plot for plot in PLOTS if plot != first]
    return [first, *rng.sample(others, count - 1)]


# ------------------------------------------------------------------------------------------------ facts and descriptions


def make_facts(rng: random.Random) -> str:
    """A paragraph of small facts, of one to four kinds."""
    makers = (fact_about_subject, fact_capital, fact_opposite, fact_sound, fact_colour, fact_calendar, fact_counting)
    return " ".join(rng.choice(makers)(rng) for _ in range(rng.randrange(1, 6)))


def fact_about_subject(rng: random.Random) -> str:
    """Two or more sentences about one subject."""
    sentences = rng.choice(list(FACTS.values()))
    return " ".join(sentences[: rng.randrange(2, len(sentences) + 1)])


def fact_capital(rng: random.Random) -> str:
    """One sentence on a capital city."""
    country, city = rng.choice(list(CAPITALS.items()))
    return expand(rng, f"[The capital of {country} is {city}.|{city} is the capital of {country}.]")


def fact_opposite(rng: random.Random) -> str:
    """One sentence on a pair of opposites."""
    word, other = rng.choice(list(OPPOSITES.items()))
    return expand(rng, f"[The opposite of {word} is {other}.|If something is not {word}, it may be {other}.]")


def fact_sound(rng: random.Random) -> str:
    """One sentence on the sound of an animal."""
    animal, sound = rng.choice(list(SOUNDS.items()))
    return expand(rng, f"[A {animal} {sound}.|When it is [happy|afraid|hungry], a {animal} {sound}.]")


def fact_colour(rng: random.Random) -> str:
    """One sentence on the colour of something."""
    thing, colour = rng.choice(list(COLOUR_OF.items()))
    return f"{capitalised(thing)} is {colour}."


def fact_calendar(rng: random.Random) -> str:
    """One sentence on the order of days or months."""
    names = rng.choice((DAYS, MONTHS))
    index = rng.randrange(len(names))
    name, following = names[index], names[(index + 1) % len(names)]
    whole = "There are seven days in a week." if names is DAYS else "There are twelve months in a year."
    return rng.choice((f"After {name} comes {following}.", f"{name} comes before {following}.", whole))


def fact_counting(rng: random.Random) -> str:
    """One sentence that adds two small numbers."""
    left, right = rng.randrange(1, 11), rng.randrange(1, 11)
    return f"{NUMBERS[left]} and {NUMBERS[right]} make {NUMBERS[left + right]}.".capitalize()


DESCRIPTIONS = (
    "{place} is [quiet|full of people|beautiful] in the [morning|evening|summer]. {weather} A old {work} sits on a bench and [eats {food}|"
    "reads a book|looks at the sky]. A {colour} {animal} [runs past|sleeps in the sun|waits for something to eat]. [Nobody is in a hurry|Time goes slowly here].",
    "{hero} is a {trait} {work}. {He} has [{colour} hair|kind eyes|a deep voice|strong hands] and always [wears|carries] a {colour2} [hat|coat|scarf]. "
    "[On Sundays|In the evening], {he} [likes to read|plays the flute|cooks {food} for {friend}]. {friend} says that {he} is [the most {trait2} person in {home_short}|{trait2}, too].",
    "The {thing} is {size} and {colour}. It [was made|was bought] by {hero}, a {work}, [many years ago|last winter]. [There is a small mark on one side|It smells of wood|"
    "It feels warm in the hand]. {hero} keeps it {hiding}, [so that nobody can find it|where it is safe].",
    "In the middle of the room stands a {colour} table. On the table there is a {thing}, and next to it [a cup of tea|a plate with {food}|a {colour2} lamp]. "
    "[The window is open|The door is closed]. {weather} A {animal} [sleeps|sits] under the table.",
    "{hero} lives {home}. The house has {n1} rooms and a {colour} door. In the garden grow {plants}. [From the window|From the roof] one can see {place}. "
    "[{hero} likes it there|It is small, but it is enough].",
    "Dear {hero},\nThank you for the {thing}. It is {size} and {colour}, and I like it very much. [Yesterday|Last week] I was at {place} with {friend}. {weather} "
    "We [ate {food}|talked about you|saw a {animal}]. [I hope to see you soon|Please write to me soon].\nYour friend",
    "[To make {food}, you need time and patience|How to wrap a {thing}|A plan for a good day]. First, [wash your hands|clear the table]. Then [take what you need|"
    "read the whole plan]. After that, [do one step at a time|work slowly]. [Finally|At the end], [clean the kitchen|share it with a friend|rest a little].",
    "[The quick brown fox jumps over the lazy dog|A {colour} {animal} jumps over the {size} {thing}]. [The dog does not mind|{hero} looks up and laughs]. "
    "{weather} [It is an ordinary day|Nothing else happens].",
)
DIALOGUE_LINES = (
    ('"Where is {place}?" asked {hero}.', '"[Go straight on and turn left|It is behind the hill|It is not far]," said {friend}.'),
    ('"What is in the {thing}?" asked {hero}.', '"[Nothing at all|Only some {food}|That is a secret]," said {friend}.'),
    ('"[Shall|Can] we go to {place}?" asked {friend}.', '"[Yes, let us go|Not today|Only if it does not rain]," said {hero}.'),
    ('"I saw a {colour} {animal} [today|this morning]," said {friend}.', '"[Really|Where was it]?" asked {hero}. "[Near {place}|In the garden]."'),
    ('"Are you [hungry|tired|cold]?" asked {hero}.', '"[A little|Yes, very much|No, thank you]," {friend} [answered|said].'),
    ('"How many {plants} did you plant?" asked {friend}.', '"{n2}," said {hero}. "[And {n1} of them are growing|I counted them twice]."'),
    ('"[What time is it|Is it late]?" asked {hero}.', '"It is {n1} o\'clock," said {friend}. "[We have time|We must hurry]."'),
    ('"I want to learn {skill}," said {hero}.', '"[I can teach you|It takes time]," said {friend}.'),
    ('"Do you remember the {work}?" asked {friend}.', '"[Of course|Yes]," said {hero}. "[A very {trait} person|We met near {place}]."'),
)


def make_description(rng: random.Random) -> str:
    """A picture of a place, a person or a thing, or a short letter."""
    return expand(rng, rng.choice(DESCRIPTIONS), all_slots(rng))


def make_dialogue(rng: random.Random) -> str:
    """Two people who talk, one line each."""
    slots = all_slots(rng)
    exchanges = rng.sample(DIALOGUE_LINES, rng.randrange(2, 5))
    scene = expand(rng, "{hero} and {friend} [met|sat|stood] [near|not far from] {place}. {weather}", slots)
    return "\n".join([scene, *(expand(rng, line, slots | scene_slots(rng)) for exchange in exchanges for line in exchange)])


def all_slots(rng: random.Random) -> dict[str, str]:
    """Every slot, for text that is not part of a longer story."""
    home = rng.choice(HOMES)
    return person_slots(*draw_people(rng, 2)) | scene_slots(rng) | {"home": home, "home_short": short_home(home)}


# ---------------------------------------------------------------------------------------------------------------- chats

Exchange = tuple[str, str]


def ask_small_talk(rng: random.Random) -> Exchange:
    """A greeting, a thank-you or some other small talk."""
    question, answer = rng.choice(SMALL_TALK)
    slots = scene_slots(rng) | {"colour_thing": rng.choice(("the sea", "warm evenings", "old houses", "flowers", "a clear sky"))}
    return expand(rng, question), expand(rng, answer, slots)


def ask_identity(rng: random.Random) -> Exchange:
    """Who the model is."""
    return rng.choice(WHO_ARE_YOU), expand(rng, rng.choice(I_AM))


def ask_capital(rng: random.Random) -> Exchange:
    """A capital city."""
    country, city = rng.choice(list(CAPITALS.items()))
    question = f"[What is the capital of {country}?|Which city is the capital of {country}?|Do you know the capital of {country}?|Capital of {country}?]"
    return expand(rng, question), expand(rng, f"The capital of {country} is {city}.")


def ask_opposite(rng: random.Random) -> Exchange:
    """The opposite of a word."""
    word, other = rng.choice(list(OPPOSITES.items()))
    return expand(rng, f"[What is the opposite of {word}?|Tell me the opposite of {word}.]"), f"The opposite of {word} is {other}."


def ask_sound(rng: random.Random) -> Exchange:
    """The sound of an animal."""
    animal, sound = rng.choice(list(SOUNDS.items()))
    return expand(rng, f"[What does a {animal} do?|What sound does a {animal} make?]"), expand(rng, f"A {animal} {sound}.")


def ask_colour(rng: random.Random) -> Exchange:
    """The colour of something, or a list of colours."""
    if rng.random() < 0.3:
        count = rng.randrange(3, 7)
        question = f"[Name|Tell me|Give me] {NUMBERS[count]} colours."
        return expand(rng, question), capitalised(listed(rng.sample(COLOURS, count))) + "."
    thing, colour = rng.choice(list(COLOUR_OF.items()))
    return expand(rng, f"[What colour is {thing}?|Which colour is {thing}?]"), f"{capitalised(thing)} is {colour}."


def ask_list(rng: random.Random) -> Exchange:
    """A list of animals, foods, names, days or months."""
    kind, words = rng.choice((("animals", ANIMALS), ("things", THINGS), ("names", GIRLS + BOYS), ("places", PLACES), ("foods", FOODS)))
    if rng.random() < 0.2:
        kind, words = rng.choice((("days of the week", DAYS), ("months of the year", MONTHS)))
        return f"What are the {kind}?", f"The {kind} are {listed(words)}."
    count = rng.randrange(2, 7)
    question = expand(rng, f"[Name {NUMBERS[count]} {kind}.|Can you name {NUMBERS[count]} {kind}?|Give me a list of {NUMBERS[count]} {kind}.]")
    chosen = rng.sample(words, count)
    if rng.random() < 0.4:
        return question, "\n".join(f"{index}. {capitalised(word)}" for index, word in enumerate(chosen, start=1))
    return question, capitalised(listed(chosen)) + "."


def listed(words: list[str]) -> str:
    """Words as an English list with commas and an "and"."""
    return f"{', '.join(words[:-1])} and {words[-1]}"


def ask_count(rng: random.Random) -> Exchange:
    """Counting up or down, in words or in figures."""
    if rng.random() < 0.25:
        top = rng.choice((5, 10))
        return f"Count down from {NUMBERS[top]}.", ", ".join(reversed(NUMBERS[: top + 1])).capitalize() + "."
    top = rng.choice((3, 5, 7, 8, 10, 10, 12, 15, 20))
    if rng.random() < 0.5:
        return expand(rng, f"[Count|Please count|Can you count] to {top}."), ", ".join(map(str, range(1, top + 1))) + "."
    return expand(rng, f"[Count|Please count] to {NUMBERS[top]}."), ", ".join(NUMBERS[1 : top + 1]).capitalize() + "."


def ask_sum(rng: random.Random) -> Exchange:
    """A sum of two small numbers."""
    left, right = rng.randrange(1, 11), rng.randrange(1, 11)
    if rng.random() < 0.5:
        return f"What is {left} + {right}?", f"{left} + {right} = {left + right}."
    answer = f"{NUMBERS[left]} and {NUMBERS[right]} make {NUMBERS[left + right]}.".capitalize()
    return expand(rng, f"[What is {NUMBERS[left]} plus {NUMBERS[right]}?|How much is {NUMBERS[left]} and {NUMBERS[right]}?]"), answer


def ask_calendar(rng: random.Random) -> Exchange:
    """What comes after a day or a month."""
    names, kind = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    index = rng.randrange(len(names))
    following = names[(index + 1) % len(names)]
    question = expand(rng, f"[Which|What] {kind} comes after {names[index]}?")
    return question, f"After {names[index]} comes {following}."


def ask_fact(rng: random.Random) -> Exchange:
    """What something is."""
    subject, sentences = rng.choice(list(FACTS.items()))
    question = f"[What is {subject}?|Tell me about {subject}.|Can you explain what {subject} is?|Explain {subject}.|What do you know about {subject}?]"
    return expand(rng, question), " ".join(sentences[: rng.randrange(2, len(sentences) + 1)])


def ask_unknown(rng: random.Random) -> Exchange:
    """Something that the model does not know, which it says."""
    subject, topic = rng.choice(UNKNOWN), rng.choice(ANIMALS + THINGS)
    question = f"[What do you know about {subject}?|Explain {subject}.|Tell me about {subject}.|Can you help me with {subject}?|Can you teach me {subject}?]"
    answer = (
        f"I am [sorry, but I am |]a very small model, so I do not know much about {subject}. "
        f"[But I can tell you a story about a {topic}.|Shall I tell you a story instead?|You could ask a teacher or look in a library.|]"
    )
    return expand(rng, question), expand(rng, answer)


def ask_story(rng: random.Random) -> Exchange:
    """A story, on a topic or not."""
    scenes = rng.choice((1, 1, 1, 2, 3))
    length = {1: "[short |]", 2: "", 3: "long "}[scenes]
    if rng.random() < 0.25:
        question = f"[Tell me a {length}story|Please tell me a {length}story|Write a {length}story|I would like to hear a story|Do you know a story][.|]"
        return expand(rng, question), make_story(rng, scenes)
    topic = rng.choice(ANIMALS + THINGS)
    question = f"[Tell me a {length}story about|Please tell me a {length}story about|Write a {length}story about|I want a story about] a {topic}[.|]"
    return expand(rng, question), make_story(rng, scenes, topic)


def ask_description(rng: random.Random) -> Exchange:
    """A picture in words."""
    place = rng.choice(PLACES)
    slots = all_slots(rng) | {"place": place}
    return expand(rng, f"[Describe {place}.|What is it like at {place}?|Tell me about {place}.]"), expand(rng, DESCRIPTIONS[0], slots)


def ask_poem(rng: random.Random) -> Exchange:
    """Four short lines."""
    topic = rng.choice(ANIMALS + THINGS)
    poem = (
        f"The {topic} [waits|sleeps|rests] [beside|behind] the door,\n[the wind|the rain|the night] has [never come|been here] before.\n"
        f"[The stars are bright|The moon is white|The hills are green], the [road|night|day] is long,\nand [someone|{rng.choice(GIRLS + BOYS)}] sings [a|an old|a quiet] song."
    )
    return expand(rng, f"[Write|Can you write|Write me] a [short |]poem about a {topic}."), expand(rng, poem)


ASKERS: tuple[tuple[Callable[[random.Random], Exchange], int], ...] = (
    (ask_small_talk, 5), (ask_identity, 2), (ask_capital, 3), (ask_opposite, 1), (ask_sound, 1), (ask_colour, 2), (ask_list, 2),
    (ask_count, 2), (ask_sum, 2), (ask_calendar, 1), (ask_fact, 4), (ask_unknown, 2), (ask_story, 6), (ask_description, 1), (ask_poem, 1),
)  # fmt: skip


def make_chat(rng: random.Random, turns: int | None = None) -> str:
    """A conversation in the chat format, mostly of one to four turns, one time in four with a system prompt."""
    makers, weights = zip(*ASKERS, strict=True)
    turns = turns or rng.choice((1, 1, 1, 2, 2, 3, 4))
    parts = [turn(SYSTEM, expand(rng, rng.choice(SYSTEM_PROMPTS)))] if rng.random() < 0.25 else []
    for asker in rng.choices(makers, weights, k=turns):
        question, answer = asker(rng)
        parts += [turn(USER, casual(rng, question)), turn(ASSISTANT, answer)]
    return "".join(parts).rstrip()


def turn(role: str, text: str) -> str:
    """One turn as the chat template writes it."""
    return f"{role}\n{text}{END}\n"


def casual(rng: random.Random, question: str) -> str:
    """Sometimes a question as people type it: without capitals or without a mark at its end."""
    if rng.random() < 0.15:
        question = question.lower()
    return question.rstrip("?.!") if rng.random() < 0.15 else question


# ------------------------------------------------------------------------------------------------------------- documents


def make_document(rng: random.Random) -> str:
    """One document of any kind, without the end-of-text token."""
    draw = rng.random()
    if draw < 0.34:
        return make_story(rng, scenes=rng.choice((1, 1, 1, 2, 3)))
    if draw < 0.40:
        return make_story(rng, scenes=rng.randrange(4, 12))
    if draw < 0.46:
        return make_facts(rng)
    if draw < 0.52:
        return make_description(rng)
    if draw < 0.57:
        return make_dialogue(rng)
    return make_chat(rng, turns=rng.randrange(6, 20) if draw > 0.97 else None)


def documents(seed: int) -> Iterator[str]:
    """Documents without end; the same seed makes the same ones."""
    rng = random.Random(seed)
    while True:
        yield make_document(rng)
