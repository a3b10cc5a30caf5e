// A 3 x 3 x 3 convolution of channels-last images in half precision, with as many channels out as in.
//
// The width must suit (48 channels): all weights and the planes that are needed lie in shared memory, so the image is
// read twice instead of 27 times. A block of threads marches along x over a patch of ROWS voxels of the plane y, z.
// Each input plane adds to three output planes, whose sums stay in registers: the one before, this one and the next.
//
// Defined when it is compiled: C channels, Y and Z extents, BFLOAT16 or not.

#define THREADS 256
#define WARPS (THREADS / 32)
#define ROWS 256
#define LINES (ROWS / Z)
#define CHUNKS (C / 8)        // of 8 channels, 16 bytes
#define DEEP (C / 16)         // steps of one matrix product
#define PAIRS (C / 16)        // pairs of 8 columns of its result
#define LINE (Z + 1)          // voxels of a line and a zero, which ends the line before as well
#define PATCH ((LINES + 2) * LINE + 1)
#define PIECES (PATCH * CHUNKS)
#define TURNS ((PIECES + THREADS - 1) / THREADS)
// Neighbouring chunks change places in every second group of four voxels, so that the same chunk of eight consecutive
// voxels lies in eight different banks.
#define PLACE(voxel, chunk) (((voxel) * CHUNKS + ((chunk) ^ ((voxel) >> 2 & 1))) * 16)
#define PATCH_BYTES (PIECES * 16)
#define WEIGHT_BYTES (27 * C * C * 2)

struct Sums {
    float previous[2][2 * PAIRS][4], current[2][2 * PAIRS][4], following[2][2 * PAIRS][4];
};

// Sums of the rounded values and of their squares, for the columns of a thread.
struct Moments {
    float sum[2 * PAIRS][2], square[2 * PAIRS][2];
};

// The instructions; a test on a processor has its own.
#ifndef INSTRUCTIONS

__device__ static unsigned packed(float low, float high) {
    unsigned both;
#ifdef BFLOAT16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#endif
    return both;
}

__device__ static float2 unpacked(unsigned both) {
    float2 pair;
#ifdef BFLOAT16
    pair.x = __uint_as_float(both << 16);
    pair.y = __uint_as_float(both & 0xffff0000u);
#else
    asm("{.reg .b16 low, high;\n mov.b32 {low, high}, %2;\n cvt.f32.f16 %0, low;\n cvt.f32.f16 %1, high;}"
        : "=f"(pair.x), "=f"(pair.y) : "r"(both));
#endif
    return pair;
}

#ifdef BFLOAT16
#define MULTIPLY "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#else
#define MULTIPLY "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#endif

__device__ static void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(MULTIPLY " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ static void load_matrix(unsigned (&a)[4], const char *place) {
    unsigned address = (unsigned)__cvta_generic_to_shared(place);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(address));
}

#endif

__device__ static float added_up(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 4);
    value += __shfl_xor_sync(0xffffffffu, value, 8);
    return value + __shfl_xor_sync(0xffffffffu, value, 16);
}

// Where a piece of a plane's patch lies in the image: an index of 16 bytes, or -1 outside, where zeros are.
__device__ static int source(int piece, int x, int planes, int y0) {
    int voxel = piece / CHUNKS, line = voxel / LINE, z = voxel % LINE - 1, y = y0 - 1 + line;
    bool inside = piece < PIECES && z >= 0 && y >= 0 && y < Y && x >= 0 && x < planes;
    return inside ? ((x * Y + y) * Z + z) * CHUNKS + piece % CHUNKS : -1;
}

__device__ static unsigned activated(unsigned both, float2 factor, float2 summand, float slope) {
    float2 value = unpacked(both);
    float low = fmaf(value.x, factor.x, summand.x), high = fmaf(value.y, factor.y, summand.y);
    return packed(low > 0.f ? low : low * slope, high > 0.f ? high : high * slope);
}

// Put a piece into the patch; normalise and activate it on the way where there are factors.
__device__ static void put(char *patch, int piece, uint4 value, bool inside, const float *factors, float slope) {
    int voxel = piece / CHUNKS, chunk = piece % CHUNKS;
    if (inside && factors) {
        const float2 *factor = (const float2 *)(factors + chunk * 8), *summand = factor + C / 2;
        value.x = activated(value.x, factor[0], summand[0], slope);
        value.y = activated(value.y, factor[1], summand[1], slope);
        value.z = activated(value.z, factor[2], summand[2], slope);
        value.w = activated(value.w, factor[3], summand[3], slope);
    }
    if (piece < PIECES) *(uint4 *)(patch + PLACE(voxel, chunk)) = value;
}

// Add what one tap of one plane gives to the three output planes.
__device__ static void add_tap(Sums &sums, const char *patch, const uint4 *weights, int tap, int voxel, int lane) {
    int row = voxel + (tap / 3 - 1) * LINE + tap % 3 - 1 + (lane & 15);
    const uint4 *factors = weights + tap * (DEEP * 3 * PAIRS * 32) + lane;
#pragma unroll
    for (int deep = 0; deep < DEEP; deep++) {
        unsigned a[2][4];
        load_matrix(a[0], patch + PLACE(row, 2 * deep + (lane >> 4)));
        load_matrix(a[1], patch + PLACE(row + 16, 2 * deep + (lane >> 4)));
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) {
            uint4 b0 = factors[((deep * 3 + 0) * PAIRS + pair) * 32];
            uint4 b1 = factors[((deep * 3 + 1) * PAIRS + pair) * 32];
            uint4 b2 = factors[((deep * 3 + 2) * PAIRS + pair) * 32];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                multiply(sums.following[half][2 * pair], a[half], b0.x, b0.y);
                multiply(sums.following[half][2 * pair + 1], a[half], b0.z, b0.w);
                multiply(sums.current[half][2 * pair], a[half], b1.x, b1.y);
                multiply(sums.current[half][2 * pair + 1], a[half], b1.z, b1.w);
                multiply(sums.previous[half][2 * pair], a[half], b2.x, b2.y);
                multiply(sums.previous[half][2 * pair + 1], a[half], b2.z, b2.w);
            }
        }
    }
}

// Where a lane's 8 bytes of one row lie, an index of 8 bytes: even lanes have a pair's first block, odd ones its second.
__device__ static int place_of(int voxel, int row, int pair, int lane) {
    return (voxel + lane / 4 + 8 * row) * (C / 4) + pair * 4 + (lane & 1) * 2 + (lane & 2) / 2;
}

// Exchange with the neighbour what a product's layout and rows in memory have in different lanes.
__device__ static uint2 exchanged(unsigned first, unsigned second, int lane) {
    unsigned got = __shfl_xor_sync(0xffffffffu, lane & 1 ? first : second, 1);
    return lane & 1 ? make_uint2(got, second) : make_uint2(first, got);
}

// Begin the sums of an output plane: with what is to be added to it, or with zeros.
__device__ static void begin(float (&sum)[2][2 * PAIRS][4], const uint2 *after, int voxel, int lane) {
    uint2 rows[4][PAIRS];
#pragma unroll
    for (int row = 0; row < 4; row++)
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++)
            rows[row][pair] = after ? after[place_of(voxel, row, pair, lane)] : make_uint2(0, 0);
#pragma unroll
    for (int row = 0; row < 4; row++)
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) {
            uint2 both = exchanged(rows[row][pair].x, rows[row][pair].y, lane);
            float2 first = unpacked(both.x), second = unpacked(both.y);
            sum[row / 2][2 * pair][row % 2 * 2] = first.x;
            sum[row / 2][2 * pair][row % 2 * 2 + 1] = first.y;
            sum[row / 2][2 * pair + 1][row % 2 * 2] = second.x;
            sum[row / 2][2 * pair + 1][row % 2 * 2 + 1] = second.y;
        }
}

// Write the rows of an output plane that a warp has, and take their moments in.
__device__ static void finish(float (&sum)[2][2 * PAIRS][4], Moments &moments, uint2 *result, int voxel, int lane) {
#pragma unroll
    for (int row = 0; row < 4; row++)
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) {
            unsigned both[2];
#pragma unroll
            for (int side = 0; side < 2; side++) {
                int block = 2 * pair + side;
                both[side] = packed(sum[row / 2][block][row % 2 * 2], sum[row / 2][block][row % 2 * 2 + 1]);
                float2 rounded = unpacked(both[side]);
                moments.sum[block][0] += rounded.x;
                moments.sum[block][1] += rounded.y;
                moments.square[block][0] = fmaf(rounded.x, rounded.x, moments.square[block][0]);
                moments.square[block][1] = fmaf(rounded.y, rounded.y, moments.square[block][1]);
            }
            result[place_of(voxel, row, pair, lane)] = exchanged(both[0], both[1], lane);
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) convolve(
    const uint4 *image, const uint4 *weights, const float *scale, const float *shift, const uint2 *after,
    uint2 *result, float *means, float *squares, int planes, int steps, int normalise, int add, float slope
) {
    extern __shared__ uint4 memory[];
    char *patches = (char *)memory + WEIGHT_BYTES;
    float *factors = (float *)(patches + 2 * PATCH_BYTES);
    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    int y0 = blockIdx.x * LINES, first = blockIdx.y * steps, last = min(first + steps, planes);
    long long offset = (long long)blockIdx.z * planes * Y * Z;
    image += offset * CHUNKS;
    result += offset * (C / 4);
    after += offset * (C / 4);
    for (int piece = thread; piece < WEIGHT_BYTES / 16; piece += THREADS) memory[piece] = weights[piece];
    if (thread < 2 * C) factors[thread] = normalise ? (thread < C ? scale : shift - C)[blockIdx.z * C + thread] : 0.f;
    __syncthreads();
    const float *known = normalise ? factors : 0;
    for (int piece = thread; piece < TURNS * THREADS; piece += THREADS) {
        int place = source(piece, first - 1, planes, y0);
        put(patches, piece, place < 0 ? make_uint4(0, 0, 0, 0) : image[place], place >= 0, known, slope);
    }
    __syncthreads();
    Sums sums = {};
    Moments moments = {};
    // The warp's first voxel in the patch, and in a plane of the image.
    int line = warp * 32 / Z, z0 = warp * 32 % Z, voxel = (line + 1) * LINE + z0 + 1, there = (y0 + line) * Z + z0;
    begin(sums.following, add ? after : 0, first * Y * Z + there, lane);
    for (int x = first - 1; x <= last; x++) {
        char *patch = patches + ((x - first + 1) & 1) * PATCH_BYTES, *other = patches + ((x - first) & 1) * PATCH_BYTES;
        bool inside = x >= 0 && x < planes, more = x < last && x + 1 < planes;
#pragma unroll 1
        for (int tap = 0; tap < 9; tap++) {
            uint4 values[2];
            int places[2];
#pragma unroll
            for (int part = 0; part < 2; part++) {
                places[part] = more ? source(thread + (2 * tap + part) * THREADS, x + 1, planes, y0) : -1;
                values[part] = places[part] < 0 ? make_uint4(0, 0, 0, 0) : image[places[part]];
            }
            if (inside) add_tap(sums, patch, memory, tap, voxel, lane);
#pragma unroll
            for (int part = 0; part < 2; part++) {
                int piece = thread + (2 * tap + part) * THREADS;
                if (more) put(other, piece, values[part], places[part] >= 0, known, slope);
            }
        }
        __syncthreads();
        if (x > first) finish(sums.previous, moments, result, (x - 1) * Y * Z + there, lane);
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int block = 0; block < 2 * PAIRS; block++)
#pragma unroll
                for (int value = 0; value < 4; value++) {
                    sums.previous[half][block][value] = sums.current[half][block][value];
                    sums.current[half][block][value] = sums.following[half][block][value];
                }
        begin(sums.following, add && x + 2 < last ? after : 0, (x + 2) * Y * Z + there, lane);
    }
    float count = 32.f * (last - first);
#pragma unroll
    for (int block = 0; block < 2 * PAIRS; block++)
#pragma unroll
        for (int side = 0; side < 2; side++) {
            int part = ((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * WARPS + warp;
            float sum = added_up(moments.sum[block][side]), square = added_up(moments.square[block][side]);
            if (lane < 4) {
                means[part * C + block * 8 + lane * 2 + side] = sum / count;
                squares[part * C + block * 8 + lane * 2 + side] = fmaxf(square - sum * (sum / count), 0.f);
            }
        }
}
