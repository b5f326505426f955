/*
 * Compares the CRC implementations in native/native.c with a bit-by-bit CRC. Buffers have exactly the length of the
 * data, so that the address sanitizer detects a read beyond either end. Exits with 1 on a difference. `engine` is the
 * implementation that native.c has chosen for this CPU.
 */
#include "../../../native/native.c"
#include <stdio.h>
#include <stdlib.h>

typedef uint32_t crc_function(uint32_t state, const uint8_t *bytes, uint64_t length);

static uint32_t bit_by_bit(uint32_t state, const uint8_t *p, uint64_t n)
{
    for (; n; p++, n--) {
        state ^= *p;
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (state & 1 ? 0xedb88320u : 0);
    }
    return state;
}

static int check(const char *name, crc_function *f)
{
    for (uint64_t n = 0; n <= 66000; n = n < 1200 ? n + 1 : n * 5 / 4) {
        uint8_t *buffer = calloc(1, n);
        uint32_t random = (uint32_t)n;
        for (uint64_t i = 0; i < n; i++)
            buffer[i] = (uint8_t)((random = random * 1664525u + 1013904223u) >> 24);
        const uint32_t state = random;
        if (f(state, buffer, n) != bit_by_bit(state, buffer, n)) {
            printf("%s differs at %llu bytes\n", name, (unsigned long long)n);
            return 1;
        }
        free(buffer);
    }
    printf("%s ", name);
    return 0;
}

int main(void)
{
    int wrong = check("table", crc_by_table) | check("chosen", engine);
#if defined(__x86_64__) && defined(__GNUC__)
    if (engine != crc_by_table)
        wrong |= check("pclmul", crc_by_pclmul);
    if (engine == crc_by_vpclmul)
        wrong |= check("vpclmul", crc_by_vpclmul);
#endif
    if (userdma_crc32(userdma_crc32(0, (const uint8_t *)"1234", 4), (const uint8_t *)"56789", 5) != 0xcbf43926u) {
        puts("userdma_crc32: wrong check value");
        wrong = 1;
    }
    return wrong;
}
