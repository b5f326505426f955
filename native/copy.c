/*
 * Copies between one stretch of memory and pieces that lie at a stride, as payloads lie between the headers of a run of
 * packets: one call from JavaScript, where a view and a call for each piece cost more than the copy. src/host/copy.ts
 * loads it; src/core/local-space.ts does without where it is absent.
 *
 * Build: cc -O2 -shared -fPIC
 */
#include <stdint.h>
#include <string.h>

/*
 * `total` bytes in pieces of `chunk`, the last one shorter if need be: piece i goes from from + i * from_stride to
 * to + i * to_stride. Pieces of both sides may overlap nowhere but in equal places.
 */
__attribute__((visibility("default"))) void userdma_copy(uint8_t *to, uint64_t to_stride, const uint8_t *from,
                                                         uint64_t from_stride, uint64_t chunk, uint64_t total)
{
    for (; total > chunk; total -= chunk, to += to_stride, from += from_stride)
        memmove(to, from, chunk);
    memmove(to, from, total);
}
