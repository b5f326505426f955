/*
 * The observation file. A thread claims a ring at its first record and is its only writer, so a record takes no lock
 * and no call of the system. The file is mapped when the library starts: a program gets no descriptor.
 */
#define _GNU_SOURCE
#include "../recorder/objects.h"
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FILE_BYTES (USERDMA_OBSERVE_FIRST_RING + USERDMA_OBSERVE_RINGS * (size_t)USERDMA_OBSERVE_RING_BYTES)
#define CAPACITY (USERDMA_OBSERVE_RING_BYTES - USERDMA_OBSERVE_RING_HEADER)

static char *file;
static pthread_key_t thread_end;
/* Whether START is recorded: at the first record, so that a process without RDMA takes no ring. */
static bool is_started;
/* Of the child of a fork: its parent, else 0, and the number of the parent's fork. */
static uint32_t parent;
static uint32_t own_fork;
/* Number of forks of this process. */
static uint32_t forks;
/* A vfork child has its parent's memory, but another pid. */
static uint32_t process;

static TLS struct userdma_observe_ring *ring;
static TLS uint32_t thread_id;
/* A record is being written. A signal handler's records are dropped meanwhile. */
static TLS bool is_writing;
/* The record that is being written is the flight recorder's. */
static TLS bool is_in_flight;
/* The number of this thread's last fork. */
static TLS uint32_t last_fork;

uint64_t record_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static struct userdma_observe_ring *ring_at(unsigned i)
{
    return (struct userdma_observe_ring *)(file + USERDMA_OBSERVE_FIRST_RING + i * (size_t)USERDMA_OBSERVE_RING_BYTES);
}

static void release(void *claimed)
{
    flight_thread_ends();
    __atomic_store_n(&((struct userdma_observe_ring *)claimed)->ended, 1, __ATOMIC_RELEASE);
    ring = NULL;
}

static struct userdma_observe_ring *claim(void)
{
    const uint32_t pid = (uint32_t)getpid();
    thread_id = (uint32_t)syscall(SYS_gettid);
    for (unsigned i = 0; i < USERDMA_OBSERVE_RINGS; i++) {
        uint32_t free_ring = 0;
        if (__atomic_compare_exchange_n(&ring_at(i)->pid, &free_ring, pid, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
            pthread_setspecific(thread_end, ring_at(i));
            return ring_at(i);
        }
    }
    return NULL;
}

/* Records of descriptors and processes, which the reserve of a ring is for. */
static bool is_structural(uint32_t kind)
{
    return kind == USERDMA_RECORD_START || kind == USERDMA_RECORD_END || kind == USERDMA_RECORD_OPEN ||
           kind == USERDMA_RECORD_CLOSE || kind == USERDMA_RECORD_CONTEXT || kind >= USERDMA_RECORD_DUPLICATE;
}

/* Records that a flight recorder has: those that programs make without calls. */
static bool is_of_queues(uint32_t kind)
{
    return kind == USERDMA_RECORD_POST || kind == USERDMA_RECORD_POLL || kind == USERDMA_RECORD_REFUSED ||
           kind == USERDMA_RECORD_NOTIFY;
}

static void *drop(void)
{
    uint64_t *lost = &((struct userdma_observe_head *)file)->lost;
    if (ring) {
        const uint64_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
        lost = &ring->lost;
        if (*lost == 0 || ring->lost_tail != tail) {
            ring->lost_at = ring->head;
            ring->lost_tail = tail;
        }
    }
    __atomic_fetch_add(lost, 1, __ATOMIC_RELEASE);
    return NULL;
}

void *record_begin(uint32_t kind, size_t bytes)
{
    if (!recorder_is_on)
        return NULL;
    if (UNLIKELY(is_writing))
        return drop();
    if (UNLIKELY(!ring)) {
        is_writing = true;
        ring = claim();
        is_writing = false;
        if (!ring)
            return drop();
        if (!__atomic_exchange_n(&is_started, true, __ATOMIC_RELAXED))
            record_text(USERDMA_RECORD_START, (int)own_fork, parent, program_invocation_short_name);
    }
    is_writing = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    is_in_flight = flight_is_on && is_of_queues(kind);
    if (is_in_flight) {
        void *record = flight_begin(kind, bytes, thread_id);
        if (!record)
            is_writing = false;
        return record;
    }
    bytes = (bytes + 7) & ~(size_t)7;
    const size_t at = ring->head % CAPACITY, left = CAPACITY - at;
    const size_t padding = left < bytes ? left : 0;
    const size_t limit = is_structural(kind) ? CAPACITY : CAPACITY - USERDMA_OBSERVE_RESERVE;
    if (ring->head - __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) + padding + bytes > limit) {
        is_writing = false;
        return drop();
    }
    char *data = (char *)ring + USERDMA_OBSERVE_RING_HEADER;
    if (padding) {
        ((uint32_t *)(data + at))[0] = (uint32_t)padding;
        ((uint32_t *)(data + at))[1] = USERDMA_RECORD_PAD;
        __atomic_store_n(&ring->head, ring->head + padding, __ATOMIC_RELEASE);
    }
    struct userdma_record *record = (struct userdma_record *)(data + ring->head % CAPACITY);
    *record = (struct userdma_record){.kind = kind, .tid = thread_id};
    return record;
}

void record_end(void *record, size_t bytes)
{
    if (is_in_flight) {
        flight_end(record, bytes);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        is_writing = false;
        return;
    }
    struct userdma_record *header = record;
    const size_t size = (bytes + 7) & ~(size_t)7;
    memset((char *)record + bytes, 0, size - bytes);
    header->size = (uint32_t)size;
    header->time = record_time();
    __atomic_store_n(&ring->head, ring->head + size, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    is_writing = false;
}

void record_text(uint32_t kind, int fd, uint32_t number, const char *text)
{
    const int saved = errno;
    const size_t length = strnlen(text, USERDMA_OBSERVE_MAX_TEXT_BYTES);
    struct {
        struct userdma_record record;
        struct userdma_open_record open;
        char text[];
    } *made = record_begin(kind, sizeof *made + length);
    if (made) {
        made->open = (struct userdma_open_record){.fd = fd, .file_kind = number};
        memcpy(made->text, text, length);
        record_end(made, sizeof *made + length);
    }
    errno = saved;
}

bool is_own_memory(void)
{
    return process == (uint32_t)getpid();
}

static void before_fork(void)
{
    last_fork = __atomic_add_fetch(&forks, 1, __ATOMIC_RELAXED);
    if (is_started)
        record_text(USERDMA_RECORD_FORK, (int)last_fork, 0, "");
}

static void in_child(void)
{
    ring = NULL;
    is_writing = false;
    is_started = false;
    parent = process;
    own_fork = last_fork;
    process = (uint32_t)getpid();
    stacks_in_child();
    flight_in_child();
    faults_in_child();
    objects_in_child();
}

static void note_end(void)
{
    if (is_started && is_own_memory())
        record_text(USERDMA_RECORD_END, -1, 0, "");
}

/* Before the program's constructors. */
__attribute__((constructor(101))) static void begin(void)
{
    const char *path = getenv(USERDMA_ENV_OBSERVE_FILE);
    if (!path || !path[0])
        return;
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *memory = MAP_FAILED;
    if (lseek(fd, 0, SEEK_END) == (off_t)FILE_BYTES)
        memory = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (memory == MAP_FAILED)
        return;
    file = memory;
    if (((struct userdma_observe_head *)file)->version != USERDMA_OBSERVE_VERSION ||
        pthread_key_create(&thread_end, release) != 0) {
        munmap(memory, FILE_BYTES);
        return;
    }
    process = (uint32_t)getpid();
    /* The rings of the program that this one has replaced by exec. */
    bool has_replaced = false;
    for (unsigned i = 0; i < USERDMA_OBSERVE_RINGS; i++)
        if (__atomic_load_n(&ring_at(i)->pid, __ATOMIC_RELAXED) == process) {
            has_replaced = true;
            __atomic_store_n(&ring_at(i)->ended, 1, __ATOMIC_RELEASE);
        }
    recorder_is_on = requests_are_noted = true;
    stacks_begin();
    sanitizers_begin();
    flight_open();
    faults_begin(&((struct userdma_observe_head *)file)->asks);
    pthread_atfork(before_fork, NULL, in_child);
    is_started = has_replaced;
    descriptors_begin(has_replaced ? USERDMA_RECORD_KEPT : USERDMA_RECORD_RECEIVED);
    if (has_replaced)
        record_text(USERDMA_RECORD_START, 0, 0, program_invocation_short_name);
}

__attribute__((destructor)) static void end(void)
{
    note_end();
}

/* Ends without destructors. */
EXPORT _Noreturn void _exit(int status)
{
    note_end();
    for (;;)
        syscall(SYS_exit_group, status);
}

EXPORT _Noreturn void _Exit(int status)
{
    _exit(status);
}
