/*
 * Hashes of the buffers of sends at their post, for `userdma check`. The daemon hashes the same bytes when the device
 * fetches the send, and compares with the hash log in the context's memory file (HashLog in spec/context-logs.ts).
 * outstanding.c compares when the completion is polled.
 *
 * The bytes are copied by a system call, and only from pages that are present: a scatter/gather element may have any
 * address, and the program's post must neither fault nor wait for a page (userfaultfd, a file system).
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define CHUNK 4096

static bool hashes_all;
/* CRC-32 of a byte, and of a byte with 1 to 7 bytes after it. */
static uint32_t table[8][256];

void hashes_detect(void)
{
    const char *wanted = getenv(USERDMA_ENV_BUFFERS);
    hashes_all = wanted && strcmp(wanted, "all") == 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t r = byte;
        for (int bit = 0; bit < 8; bit++)
            r = r & 1 ? r >> 1 ^ 0xedb88320u : r >> 1;
        table[0][byte] = r;
    }
    for (unsigned row = 1; row < 8; row++)
        for (unsigned byte = 0; byte < 256; byte++)
            table[row][byte] = table[0][table[row - 1][byte] & 255] ^ table[row - 1][byte] >> 8;
}

/* As zlib's crc32. */
static uint32_t crc_of(const unsigned char *bytes, size_t length, uint32_t crc)
{
    crc = ~crc;
    for (; length >= 8; bytes += 8, length -= 8)
        crc = table[7][(crc ^ bytes[0]) & 255] ^ table[6][(crc >> 8 ^ bytes[1]) & 255] ^
              table[5][(crc >> 16 ^ bytes[2]) & 255] ^ table[4][crc >> 24 ^ bytes[3]] ^ table[3][bytes[4]] ^
              table[2][bytes[5]] ^ table[1][bytes[6]] ^ table[0][bytes[7]];
    for (; length > 0; bytes++, length--)
        crc = table[0][(crc ^ *bytes) & 255] ^ crc >> 8;
    return ~crc;
}

/* Whether the pages of at most CHUNK bytes are present. */
static bool are_present(uint64_t address, size_t length)
{
    unsigned char pages[2] = {0, 1};
    const uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE), start = address & ~(size - 1);
    return mincore((void *)(uintptr_t)start, address + length - start, pages) == 0 && (pages[0] & pages[1] & 1);
}

/* Adds `left` bytes from `address` on to `crc`. False if they cannot be read. */
static bool add_range(uint64_t address, uint64_t left, uint32_t *crc)
{
    unsigned char copy[CHUNK];
    while (left > 0) {
        const size_t part = left < CHUNK ? left : CHUNK;
        const struct iovec into = {copy, part}, source = {(void *)(uintptr_t)address, part};
        if (!are_present(address, part) || process_vm_readv(getpid(), &into, 1, &source, 1, 0) != (ssize_t)part)
            return false;
        *crc = crc_of(copy, part, *crc);
        address += part;
        left -= part;
    }
    return true;
}

bool hashes_of_lend(uint64_t address, uint64_t length, uint32_t *hash)
{
    *hash = 0;
    return add_range(address, length < USERDMA_LEND_HASH_BYTES ? length : USERDMA_LEND_HASH_BYTES, hash);
}

/* Adds `bytes` bytes of the message from offset `from` on to `crc`. False if they cannot be read. */
static bool add(const struct ibv_sge *list, int count, uint64_t from, uint64_t bytes, uint32_t *crc)
{
    for (int i = 0; i < count && bytes > 0; i++) {
        if (from >= list[i].length) {
            from -= list[i].length;
            continue;
        }
        uint64_t left = list[i].length - from;
        left = left < bytes ? left : bytes;
        if (!add_range(list[i].addr + from, left, crc))
            return false;
        bytes -= left;
        from = 0;
    }
    return true;
}

/* The hash of the bytes that HashLog names. False if they cannot be read. */
static bool hash_of(const struct ibv_sge *list, int count, uint32_t index, uint32_t *crc)
{
    uint64_t length = 0;
    for (int i = 0; i < count; i++)
        length += list[i].length;
    if (hashes_all || length <= USERDMA_HASH_LOG_WHOLE_BYTES)
        return add(list, count, 0, length, crc);
    const uint64_t last = length - USERDMA_HASH_LOG_SAMPLE_BYTES;
    return add(list, count, 0, USERDMA_HASH_LOG_SAMPLE_BYTES, crc) &&
           add(list, count, (uint64_t)index * USERDMA_HASH_LOG_SAMPLE_STEP % last, USERDMA_HASH_LOG_SAMPLE_BYTES, crc) &&
           add(list, count, last, USERDMA_HASH_LOG_SAMPLE_BYTES, crc);
}

bool hashes_are_wanted(uint32_t index)
{
    return hashes_all || index < USERDMA_HASH_LOG_FIRST_SENDS || index % USERDMA_HASH_LOG_INTERVAL == 0;
}

bool hashes_take(uint32_t index, const struct ibv_sge *list, int count, uint32_t *hash)
{
    *hash = 0;
    return hash_of(list, count, index, hash);
}

void hashes_note(int fd, uint32_t qpn, uint32_t index, bool is_known, uint32_t hash)
{
    struct userdma_hash *log = events_hash_log(fd);
    if (!log)
        return;
    struct userdma_hash *entry = &log[(qpn * 31 + index) % USERDMA_HASH_LOG_ENTRIES];
    if (is_known)
        *entry = (struct userdma_hash){.number = qpn, .hashed = index + 1, .hash = hash, .is_whole = hashes_all};
    else if (entry->number == qpn && entry->hashed == index + 1)
        entry->hashed = 0; /* of the queue's time before a RESET */
}
