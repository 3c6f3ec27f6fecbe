"""The CUDA kernel that gathers some heads of records into one run, and scatters them from it."""

NAME = "move_heads"
CODE = r"""
// A block of threads moves (its share of) one record: num_rows rows of `width` bytes, `pitch` apart from `first` on.
template <typename Unit>
__device__ void move_units(char* record, char* slot, unsigned int num_rows, unsigned long long pitch,
                           unsigned long long width, int to_records) {
    const unsigned int per_row = width / sizeof(Unit);
    const unsigned int count = num_rows * per_row;
    for (unsigned int i = blockIdx.y * blockDim.x + threadIdx.x; i < count; i += gridDim.y * blockDim.x) {
        Unit* inside = (Unit*)(record + (i / per_row) * pitch) + i % per_row;
        Unit* outside = (Unit*)slot + i;
        if (to_records) *inside = *outside;
        else *outside = *inside;
    }
}

extern "C" __global__ void move_heads(
    char* records, const long long* block_ids, unsigned long long record_bytes, char* packed, int to_records,
    unsigned int num_rows, unsigned long long pitch, unsigned long long first, unsigned long long width
) {
    char* record = records + block_ids[blockIdx.x] * record_bytes + first;
    char* slot = packed + blockIdx.x * (num_rows * width);
    if (((unsigned long long)record | (unsigned long long)slot | pitch | width) % sizeof(uint4) == 0)
        move_units<uint4>(record, slot, num_rows, pitch, width, to_records);
    else
        move_units<char>(record, slot, num_rows, pitch, width, to_records);
}
"""
