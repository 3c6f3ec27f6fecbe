"""XXH3-64 of many records at once on a GPU: the same number that `kv_region.checksum` gives on a CPU.

After each KiB, XXH3 scrambles its eight sums, which nothing but one after the other can do. What a KiB adds to the sums
does not depend on them, however, and that is where the bytes are. So a block of threads takes one record: sixteen warps
read it, each byte once in loads of 16, two KiB per warp ahead of what they compute, and add up KiB by KiB; one more
warp follows a tile behind them and scrambles. It needs some 30 cycles per KiB, fewer than one of a hundred SMs gets of
the memory's bandwidth meanwhile: with a record for each SM it is the memory that limits, with fewer the scrambling.

(XXH3: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, "XXH3 Algorithm for long inputs".)
"""

NAME = "xxh3_records"
MIN_RECORD_BYTES = 256  # shorter inputs have an algorithm of their own
ALIGNMENT_BYTES = 16
NUM_READING_WARPS = 16
KIB_PER_WARP = 2
NUM_THREADS = 32 * (1 + NUM_READING_WARPS)

# The default secret as 64-bit words, little endian.
SECRET = (
    0xBE4BA423396CFEB8, 0x1CAD21F72C81017C, 0xDB979083E96DD4DE, 0x1F67B3B7A4A44072,
    0x78E5C0CC4EE679CB, 0x2172FFCC7DD05A82, 0x8E2443F7744608B8, 0x4C263A81E69035E0,
    0xCB00C391BB52283C, 0xA32E531B8B65D088, 0x4EF90DA297486471, 0xD8ACDEA946EF1938,
    0x3F349CE33F76FAA8, 0x1D4F0BC7C7BBDCF9, 0x3159B4CD4BE0518A, 0x647378D9C97E9FC8,
    0xC3EBD33483ACC5EA, 0xEB6313FAFFA081C5, 0x49DAF0B751DD0D17, 0x9E68D429265516D3,
    0xFCA1477D58BE162B, 0xCE31D07AD1B8F88F, 0x280416958F3ACB45, 0x7E404BBBCAFBD7AF,
)  # fmt: skip
INITIAL_SUMS = (
    0x00000000C2B2AE3D, 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
    0x85EBCA77C2B2AE63, 0x0000000085EBCA77, 0x27D4EB2F165667C5, 0x000000009E3779B1,
)  # fmt: skip


def _words(words: tuple[int, ...]) -> str:
    return ", ".join(f"{word:#018x}ULL" for word in words)


CODE = (
    f"#define READERS {NUM_READING_WARPS}\n#define DEPTH {KIB_PER_WARP}\n"
    f"typedef unsigned int u32;\ntypedef unsigned long long u64;\n"
    f"__constant__ u64 SECRET[24] = {{{_words(SECRET)}}};\n"
    f"__constant__ u64 INITIAL[8] = {{{_words(INITIAL_SUMS)}}};\n"
    r"""
#define TILE (READERS * DEPTH)  // KiB
#define ALL_LANES 0xffffffffu

// What 16 bytes add to the two sums that they belong to: each word to its neighbour's, and the product of its halves.
__device__ __forceinline__ void add(u64& even, u64& odd, uint4 data, u64 even_key, u64 odd_key) {
    const u64 first = data.x | (u64)data.y << 32, second = data.z | (u64)data.w << 32;
    const u64 x = first ^ even_key, y = second ^ odd_key;
    even += second + (u64)(u32)x * (u32)(x >> 32);
    odd += first + (u64)(u32)y * (u32)(y >> 32);
}

// The secret's word from byte 8 * word + shift / 8 on.
__device__ __forceinline__ u64 secret_at(int word, int shift) {
    return SECRET[word] >> shift | SECRET[word + 1] << (64 - shift);
}

// A warp has a KiB: 16 stripes of 64 bytes. A lane takes the same 16 bytes of two of them; seven others have the rest.
__device__ __forceinline__ void load(uint4* data, const uint4* record, u32 kib, int lane, u32 num_stripes) {
    for (int half = 0; half < 2; half++)
        if (kib * 16 + half * 8 + lane / 4 < num_stripes) data[half] = record[kib * 64 + half * 32 + lane];
}

extern "C" __global__ void __launch_bounds__(32 * (1 + READERS), 2) xxh3_records(
    const char* records, const long long* block_ids, u64 record_bytes, u64* checksums
) {
    __shared__ u64 sums[2][TILE][8];
    const uint4* record = (const uint4*)(records + block_ids[blockIdx.x] * record_bytes);
    const int lane = threadIdx.x % 32, reader = (int)(threadIdx.x / 32) - 1;
    const u32 num_stripes = (u32)((record_bytes - 1) / 64);  // but for the last, which ends with the record
    const u32 num_scrambled = num_stripes / 16, num_tiles = num_scrambled / TILE + 1;
    u64 sum = 0, key = 0, last = 0, last_neighbour = 0, keys[2][2];
    uint4 ahead[DEPTH][2];
    if (reader < 0 && lane < 8) {
        const u64* end = (const u64*)((const char*)record + record_bytes - 64);
        sum = INITIAL[lane], key = SECRET[16 + lane], last = end[lane], last_neighbour = end[lane ^ 1];
    }
    if (reader >= 0) {
        for (int half = 0; half < 2; half++)
            for (int word = 0; word < 2; word++)
                keys[half][word] = SECRET[half * 8 + lane / 4 + 2 * (lane % 4) + word];
        for (int depth = 0; depth < DEPTH; depth++)
            load(ahead[depth], record, depth * READERS + reader, lane, num_stripes);
    }
    for (u32 tile = 0; tile <= num_tiles; tile++) {
        if (reader >= 0 && tile < num_tiles) {
            uint4 data[DEPTH][2];
            for (int depth = 0; depth < DEPTH; depth++) {
                data[depth][0] = ahead[depth][0], data[depth][1] = ahead[depth][1];
                load(ahead[depth], record, (tile + 1) * TILE + depth * READERS + reader, lane, num_stripes);
            }
            for (int depth = 0; depth < DEPTH; depth++) {
                const int row = depth * READERS + reader;
                u64 even = 0, odd = 0;
                for (int half = 0; half < 2; half++)
                    if ((tile * TILE + row) * 16 + half * 8 + lane / 4 < num_stripes)
                        add(even, odd, data[depth][half], keys[half][0], keys[half][1]);
                for (int distance = 4; distance < 32; distance *= 2) {
                    even += __shfl_xor_sync(ALL_LANES, even, distance);
                    odd += __shfl_xor_sync(ALL_LANES, odd, distance);
                }
                if (lane < 4) sums[tile % 2][row][2 * lane] = even, sums[tile % 2][row][2 * lane + 1] = odd;
            }
        }
        if (reader < 0 && lane < 8 && tile > 0) {
            const u32 first = (tile - 1) * TILE;
            const int count = num_scrambled - first < TILE ? (int)(num_scrambled - first) : TILE;
            #pragma unroll 8
            for (int row = 0; row < count; row++) {
                sum += sums[(tile - 1) % 2][row][lane];
                sum = (sum ^ sum >> 47 ^ key) * 0x9e3779b1u;
            }
            if (count < TILE) sum += sums[(tile - 1) % 2][count][lane];  // a KiB that is not full, or nothing
        }
        __syncthreads();
    }
    if (reader >= 0) return;
    u64 part = 0;
    if (lane < 8) {
        const u64 x = last ^ secret_at(15 + lane, 8);
        sum += last_neighbour + (u64)(u32)x * (u32)(x >> 32);
        part = sum ^ secret_at(1 + lane, 24);
    }
    const u64 neighbour = __shfl_xor_sync(ALL_LANES, part, 1);
    u64 folded = part * neighbour ^ __umul64hi(part, neighbour);
    folded += __shfl_xor_sync(ALL_LANES, folded, 2);
    folded += __shfl_xor_sync(ALL_LANES, folded, 4);
    folded += record_bytes * 0x9e3779b185ebca87ULL;
    folded = (folded ^ folded >> 37) * 0x165667919e3779f9ULL;
    if (lane == 0) checksums[blockIdx.x] = folded ^ folded >> 32;
}
"""
)
