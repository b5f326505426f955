/*
 * CRC-32 for the ICRC of RoCEv2 packets (src/transport/wire/crc.ts), and copies of many chunks with one call.
 *
 * The CRC is Ethernet's (reflected polynomial 0xEDB88320). It is fast for buffers of 64 bytes to a few kilobytes:
 * carry-less multiplication on x86-64 (PCLMULQDQ, or VPCLMULQDQ in registers of 64 bytes), elsewhere a table. Method:
 * V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009. Every
 * constant but Barrett's two is x^k mod P, bit-reflected and shifted left by one. k is in the comment at the first use
 * of the constant.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* table[k][b]: the CRC register after byte b and k zero bytes, from register 0. */
static uint32_t table[8][256];

/* Eight bytes per step. All implementations take and return the CRC register, which is not inverted. */
static uint32_t crc_by_table(uint32_t state, const uint8_t *p, uint64_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        state = table[7][(state ^ p[0]) & 255] ^ table[6][(state >> 8 ^ p[1]) & 255] ^
                table[5][(state >> 16 ^ p[2]) & 255] ^ table[4][state >> 24 ^ p[3]] ^
                table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; n; p++, n--)
        state = table[0][(state ^ *p) & 255] ^ state >> 8;
    return state;
}

/* The fastest implementation for this processor. */
static uint32_t (*engine)(uint32_t, const uint8_t *, uint64_t) = crc_by_table;

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* Compile a function for processors with these extensions. */
#define SSE __attribute__((target("pclmul,sse4.1")))
#define AVX __attribute__((target("pclmul,sse4.1,avx512f,avx512vl,avx512dq,vpclmulqdq")))

/* Masks for PSHUFB: at [16 + r] to shift right by r bytes, at [r] to shift left by 16 - r bytes. */
static const uint8_t shift_masks[48] = {
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
};

SSE static inline __m128i load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

/* `data` plus `x` moved by a distance. `k`: constants for the distance + 32 bits (low half) and - 32 bits (high). */
SSE static inline __m128i fold(__m128i x, __m128i k, __m128i data)
{
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11)), data);
}

/*
 * Folds the rest of the buffer, n < 64 bytes at p, into `x`, and reduces the 128 bits to 32. The buffer has at least 16
 * bytes before p + n.
 */
SSE static inline uint32_t finish(__m128i x, const uint8_t *p, uint64_t n)
{
    const __m128i k128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);      /* 128 - 32, 128 + 32 */
    const __m128i k64 = _mm_set_epi64x(0, 0x163cd6124);                 /* 64 */
    const __m128i barrett = _mm_set_epi64x(0x1f7011641, 0x1db710641);   /* x^64 / P and P, for Barrett's reduction */
    const __m128i low = _mm_set_epi32(0, 0, 0, -1);

    for (; n >= 16; p += 16, n -= 16)
        x = fold(x, k128, load(p));
    if (n) {
        /* `x` and the remaining n bytes are 16 + n bytes. The first n, from `x`, are folded into the last 16. */
        const __m128i left_shift = load(shift_masks + n), right_shift = load(shift_masks + 16 + n);
        const __m128i last = _mm_blendv_epi8(load(p + n - 16), _mm_shuffle_epi8(x, right_shift), left_shift);
        x = fold(_mm_shuffle_epi8(x, left_shift), k128, last);
    }
    x = _mm_xor_si128(_mm_clmulepi64_si128(x, k128, 0x10), _mm_srli_si128(x, 8));
    x = _mm_xor_si128(_mm_clmulepi64_si128(_mm_and_si128(x, low), k64, 0x00), _mm_srli_si128(x, 4));
    __m128i q = _mm_clmulepi64_si128(_mm_and_si128(x, low), barrett, 0x10);
    q = _mm_clmulepi64_si128(_mm_and_si128(q, low), barrett, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(x, q), 1);
}

SSE static uint32_t crc_by_pclmul(uint32_t state, const uint8_t *p, uint64_t n)
{
    if (n < 16)
        return crc_by_table(state, p, n);
    __m128i a = _mm_xor_si128(load(p), _mm_cvtsi32_si128((int)state));
    if (n < 64)
        return finish(a, p + 16, n - 16);

    const __m128i k512 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);      /* 512 - 32, 512 + 32 */
    const __m128i k128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m128i b = load(p + 16), c = load(p + 32), d = load(p + 48);
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
        a = fold(a, k512, load(p));
        b = fold(b, k512, load(p + 16));
        c = fold(c, k512, load(p + 32));
        d = fold(d, k512, load(p + 48));
    }
    return finish(fold(fold(fold(a, k128, b), k128, c), k128, d), p, n);
}

AVX static inline __m512i fold4(__m512i x, __m512i k, __m512i data)
{
    const __m512i low = _mm512_clmulepi64_epi128(x, k, 0x00), high = _mm512_clmulepi64_epi128(x, k, 0x11);
    return _mm512_ternarylogic_epi64(low, high, data, 0x96); /* low ^ high ^ data */
}

AVX static uint32_t crc_by_vpclmul(uint32_t state, const uint8_t *p, uint64_t n)
{
    if (n < 256)
        return crc_by_pclmul(state, p, n);
    const __m512i k2048 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x1322d1430, 0x11542778a)); /* 2048 - 32, 2048 + 32 */
    const __m512i k512 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x1c6e41596, 0x154442bd4));
    const __m128i k128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m512i a = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
    __m512i b = _mm512_loadu_si512(p + 64), c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);
    for (p += 256, n -= 256; n >= 256; p += 256, n -= 256) {
        a = fold4(a, k2048, _mm512_loadu_si512(p));
        b = fold4(b, k2048, _mm512_loadu_si512(p + 64));
        c = fold4(c, k2048, _mm512_loadu_si512(p + 128));
        d = fold4(d, k2048, _mm512_loadu_si512(p + 192));
    }
    a = fold4(fold4(fold4(a, k512, b), k512, c), k512, d);
    for (; n >= 64; p += 64, n -= 64)
        a = fold4(a, k512, _mm512_loadu_si512(p));
    __m128i x = fold(_mm512_extracti32x4_epi32(a, 0), k128, _mm512_extracti32x4_epi32(a, 1));
    x = fold(x, k128, _mm512_extracti32x4_epi32(a, 2));
    return finish(fold(x, k128, _mm512_extracti32x4_epi32(a, 3)), p, n);
}

static void choose_engine(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("sse4.1"))
        return;
    engine = crc_by_pclmul;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("vpclmulqdq"))
        engine = crc_by_vpclmul;
}
#else
static void choose_engine(void)
{
}
#endif

__attribute__((constructor)) static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t r = i;
        for (int bit = 0; bit < 8; bit++)
            r = r >> 1 ^ (r & 1 ? 0xedb88320u : 0);
        table[0][i] = r;
    }
    for (int t = 1; t < 8; t++)
        for (uint32_t i = 0; i < 256; i++)
            table[t][i] = table[0][table[t - 1][i] & 255] ^ table[t - 1][i] >> 8;
    choose_engine();
}

/* CRC-32 of n bytes at p, continued from `crc` (0 at the start), as in zlib. */
__attribute__((visibility("default"))) uint32_t userdma_crc32(uint32_t crc, const uint8_t *p, uint64_t n)
{
    return ~engine(~crc, p, n);
}

/* CRCs of `count` buffers of n bytes, one every `stride` bytes from p. Continues crcs[i], and replaces it. */
__attribute__((visibility("default"))) void userdma_crc32_each(uint32_t *crcs, const uint8_t *p, uint64_t n,
                                                               uint64_t stride, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++, p += stride)
        crcs[i] = ~engine(~crcs[i], p, n);
}

/*
 * Copies `total` bytes in chunks of `chunk` bytes; the last chunk may be shorter. Chunk i is copied from `from` +
 * i * from_stride to `to` + i * to_stride. A chunk may overlap its own destination, but no other chunk's. In JavaScript
 * a view and a call for each chunk cost more than the copy.
 */
__attribute__((visibility("default"))) void userdma_copy(uint8_t *to, uint64_t to_stride, const uint8_t *from,
                                                         uint64_t from_stride, uint64_t chunk, uint64_t total)
{
    for (; total > chunk; total -= chunk, to += to_stride, from += from_stride)
        memmove(to, from, chunk);
    memmove(to, from, total);
}
