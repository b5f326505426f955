/*
 * Bytes computed from a key: a receiver that knows the key knows what it must receive.
 */
#ifndef PATTERN_H
#define PATTERN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The finalizer of splitmix64, a bijection. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The 8 bytes at `offset`, a multiple of 8, of the pattern of `key`. */
static uint64_t word_of(uint64_t key, size_t offset)
{
    return mix(key + offset * 0x9e3779b97f4a7c15u);
}

static void fill(uint8_t *bytes, size_t length, uint64_t key)
{
    for (size_t i = 0; i < length; i += 8) {
        const uint64_t word = word_of(key, i);
        memcpy(bytes + i, &word, length - i < 8 ? length - i : 8);
    }
}

#endif
