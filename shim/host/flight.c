/*
 * The flight recorder (src/tools/observe/file-layout.ts): posts and polls of a process go to a file of its own, in
 * memory, whose oldest records are overwritten. Nobody reads it while all is well; the observer copies it when
 * something has failed.
 *
 * A thread is the only writer of its ring. Before a record it moves `tail` over the records that it overwrites: so a
 * reader that copies a ring, and then looks at `tail`, knows from where on its copy is whole.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Tries to take the lock of the shared ring; then the record is dropped, so that a post waits for nobody. */
#define TRIES 200
/* MADV_POPULATE_WRITE (Linux 5.14). */
#define POPULATE_WRITE 23
#define SHARED (USERDMA_FLIGHT_RINGS - 1)

bool flight_is_on;

/* Of the environment. */
static const char *prefix;
static size_t file_bytes;

static struct userdma_flight_head *file;
static size_t ring_bytes;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static bool has_failed;
/* The whole file has its space. */
static bool is_reserved;

static TLS struct userdma_observe_ring *ring;
static TLS bool is_shared;
/* There was no space for its ring. */
static TLS bool is_without;
/* The record that is being written: its end, as `head` counts. */
static TLS uint64_t from;

void flight_open(void)
{
    const char *value = getenv(USERDMA_ENV_OBSERVE_FLIGHT);
    char *rest;
    if (!value)
        return;
    file_bytes = strtoull(value, &rest, 10);
    if (*rest != ':' || file_bytes < USERDMA_FLIGHT_LEAST)
        return;
    /* The program may change its environment. */
    prefix = strdup(rest + 1);
    ring_bytes = ((file_bytes - USERDMA_FLIGHT_FIRST_RING) / USERDMA_FLIGHT_RINGS) & ~(size_t)63;
    flight_is_on = prefix != NULL;
}

static struct userdma_observe_ring *ring_at(unsigned i)
{
    return (struct userdma_observe_ring *)((char *)file + USERDMA_FLIGHT_FIRST_RING + i * ring_bytes);
}

/*
 * Reserves memory of the file: a store to a hole would end the program if there is no more space. All pages at once,
 * and not one by one at posts. False: there is no space.
 */
static bool reserve(void *memory, size_t bytes)
{
    const uintptr_t page = 4096, begin = (uintptr_t)memory & ~(page - 1);
    const uintptr_t end = ((uintptr_t)memory + bytes + page - 1) & ~(page - 1);
    return syscall(SYS_madvise, begin, end - begin, POPULATE_WRITE) == 0 || is_reserved;
}

/* The file of this process. */
static struct userdma_flight_head *create(void)
{
    char path[4096];
    const int length =
        snprintf(path, sizeof path, "%s%d-%llu", prefix, (int)getpid(), (unsigned long long)record_time());
    if (length < 0 || (size_t)length >= sizeof path)
        return NULL;
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return NULL;
    void *memory = MAP_FAILED;
    if (syscall(SYS_ftruncate, fd, (off_t)file_bytes) == 0)
        memory = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    /* Before Linux 5.14 all of it, since parts cannot be reserved later. */
    is_reserved = memory != MAP_FAILED && syscall(SYS_madvise, memory, 4096, POPULATE_WRITE) != 0 &&
                  errno == EINVAL && syscall(SYS_fallocate, fd, 0, (off_t)0, (off_t)file_bytes) == 0;
    syscall(SYS_close, fd);
    if (memory != MAP_FAILED && !reserve(memory, 4096)) {
        munmap(memory, file_bytes);
        memory = MAP_FAILED;
    }
    if (memory == MAP_FAILED) {
        syscall(SYS_unlinkat, AT_FDCWD, path, 0);
        return NULL;
    }
    struct userdma_flight_head *head = memory;
    head->pid = (uint32_t)getpid();
    head->ring_bytes = (uint32_t)ring_bytes;
    __atomic_store_n(&head->version, USERDMA_FLIGHT_VERSION, __ATOMIC_RELEASE);
    return head;
}

/* The ring of this thread; NULL: there is no file. */
static struct userdma_observe_ring *claim(uint32_t thread)
{
    const int saved = errno;
    pthread_mutex_lock(&opening);
    if (!file && !has_failed) {
        file = create();
        has_failed = !file;
    }
    is_shared = true;
    ring = NULL;
    for (unsigned i = 0; file && i < SHARED; i++) {
        struct userdma_observe_ring *one = ring_at(i);
        if (one->pid != 0 && !__atomic_load_n(&one->ended, __ATOMIC_ACQUIRE))
            continue;
        if (one->pid == 0 && !reserve(one, ring_bytes))
            break;
        one->pid = thread;
        __atomic_store_n(&one->ended, 0, __ATOMIC_RELAXED);
        ring = one;
        is_shared = false;
        break;
    }
    if (file && !ring && reserve(ring_at(SHARED), ring_bytes))
        ring = ring_at(SHARED);
    pthread_mutex_unlock(&opening);
    errno = saved;
    return ring;
}

static void *drop(void)
{
    if (file)
        __atomic_fetch_add(&file->lost, 1, __ATOMIC_RELAXED);
    return NULL;
}

static bool lock(void)
{
    for (unsigned i = 0; i < TRIES; i++)
        if (__atomic_exchange_n(&ring->lost_tail, 1, __ATOMIC_ACQUIRE) == 0)
            return true;
    return false;
}

void *flight_begin(uint32_t kind, size_t bytes, uint32_t thread)
{
    if (UNLIKELY(!ring)) {
        if (is_without || !claim(thread)) {
            is_without = true;
            return drop();
        }
    }
    if (UNLIKELY(__atomic_load_n(&file->frozen, __ATOMIC_RELAXED)))
        return drop();
    if (UNLIKELY(is_shared) && !lock())
        return drop();
    const size_t capacity = ring_bytes - USERDMA_OBSERVE_RING_HEADER;
    bytes = (bytes + 7) & ~(size_t)7;
    char *data = (char *)ring + USERDMA_OBSERVE_RING_HEADER;
    const size_t at = ring->head % capacity, left = capacity - at;
    const size_t padding = left < bytes ? left : 0;
    const uint64_t end = ring->head + padding + bytes;
    uint64_t tail = ring->tail;
    if (UNLIKELY(bytes > capacity / 2)) {
        if (is_shared)
            __atomic_store_n(&ring->lost_tail, 0, __ATOMIC_RELEASE);
        return drop();
    }
    if (LIKELY(end - tail > capacity)) {
        while (end - tail > capacity) {
            const uint32_t size = *(const uint32_t *)(data + tail % capacity);
            /* The program has overwritten its own memory. */
            if (UNLIKELY(size < 8 || size % 8 != 0 || size > ring->head - tail)) {
                tail = ring->head;
                break;
            }
            tail += size;
        }
        __atomic_store_n(&ring->tail, tail, __ATOMIC_RELAXED);
        /* A reader that sees what is written now sees the new tail. */
        __atomic_thread_fence(__ATOMIC_RELEASE);
    }
    if (padding) {
        ((uint32_t *)(data + at))[0] = (uint32_t)padding;
        ((uint32_t *)(data + at))[1] = USERDMA_RECORD_PAD;
    }
    from = ring->head + padding;
    struct userdma_record *record = (struct userdma_record *)(data + from % capacity);
    *record = (struct userdma_record){.kind = kind, .tid = thread};
    return record;
}

void flight_end(void *record, size_t bytes)
{
    struct userdma_record *header = record;
    const size_t size = (bytes + 7) & ~(size_t)7;
    memset((char *)record + bytes, 0, size - bytes);
    header->size = (uint32_t)size;
    header->time = record_time();
    __atomic_store_n(&ring->head, from + size, __ATOMIC_RELEASE);
    if (UNLIKELY(is_shared))
        __atomic_store_n(&ring->lost_tail, 0, __ATOMIC_RELEASE);
}

void flight_completed(enum ibv_wc_status status)
{
    if (LIKELY(status == IBV_WC_SUCCESS || status == IBV_WC_WR_FLUSH_ERR) || !file)
        return;
    __atomic_fetch_add(&file->trigger, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&file->frozen, 1, __ATOMIC_RELEASE);
}

void flight_thread_ends(void)
{
    if (ring && !is_shared)
        __atomic_store_n(&ring->ended, 1, __ATOMIC_RELEASE);
    ring = NULL;
}

/* The child has a file of its own: the parent's mapping is not for it. */
void flight_in_child(void)
{
    if (file)
        munmap(file, file_bytes);
    file = NULL;
    ring = NULL;
    is_without = false;
    has_failed = false;
    opening = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}
