/*
 * Shares pages of its own memory with the test driver test/system/devices/adopted.mjs, by calls of the object dialect
 * without libibverbs.
 *
 *   adopted CASE
 *
 * CASE:
 *
 *   share     two ranges of malloc: stores reach the device and back without a call; after the destroy the memory is
 *             ordinary, and can be shared again
 *   fork      a child writes to shared pages, its parent does not see it
 *   close     the pages are ordinary memory after the last descriptor of the context was closed
 *   threads   THREADS threads create and destroy at the same time; their records are in one page
 *   race      a thread stores to a page again and again while it is shared and becomes ordinary memory: no store is
 *             lost. Only checked if the kernel lets programs write-protect their pages
 *   hostile   ranges that cannot be shared
 *   fails     a call that fails after it has adopted ranges
 *   full      as many mappings as the system allows: the call fails with ENOMEM, and its object is gone. Only checked
 *             if vm.max_map_count is not raised
 *   many      MANY objects
 *   stack     pages of the stack that the call uses itself
 *   unmapped  the program unmaps pages, or makes them unreadable, before the destroy: they stay so, the others are
 *             ordinary
 *
 * Each prints "good" at its end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define THREADS 4
#define ROUNDS 50
#define MANY 300
#define RACES 300
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
/* UFFD_FEATURE_WP_HUGETLBFS_SHMEM */
#define WP_SHARED (1u << 12)
/* Seconds until a missing echo is a failure. */
#define LIMIT 20
/* Words of each range, as in the driver. */
#define DOORBELL 2
#define ECHO 3
/* Class and attributes of the driver. */
enum { SHARER = 0x8000, CREATE = 0, DESTROY = 3, RANGES = 1, FAILS = 2, FIRST = 64, OFFSET = 65 };
/* Of class device: `open`. */
enum { DEVICE = 2, DEVICE_OPEN = 32, NUM_COMP_VECTORS = 64, CORE_SUPPORT = 65 };
/* Flags of attributes. */
enum { MANDATORY = 1, OUT = 2 };

#define NEED(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: false: %s (errno %d %s)\n", __LINE__, #condition, errno, strerror(errno));               \
            fflush(stdout);                                                                                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

struct message {
    struct {
        uint16_t length, class;
        uint32_t object, op_ctrl, flags;
    } header;
    uint8_t bytes[512];
};

struct range {
    uint64_t address, bytes;
};

static int device;

static void begin(struct message *message, uint16_t class, uint32_t object)
{
    memset(message, 0, sizeof *message);
    message->header.length = sizeof message->header;
    message->header.class = class;
    message->header.object = object;
}

/* Adds an attribute; returns its payload. */
static void *add(struct message *message, uint16_t id, uint32_t flags, const void *payload, uint16_t length)
{
    uint8_t *at = (uint8_t *)message + message->header.length;
    const struct {
        uint16_t length, id;
        uint32_t flags;
    } attribute = {(uint16_t)(8 + length), id, flags};
    memcpy(at, &attribute, sizeof attribute);
    if (payload)
        memcpy(at + 8, payload, length);
    message->header.length += (uint16_t)(8 + (length + 7) / 8 * 8);
    return at + 8;
}

static int call(int fd, struct message *message, unsigned method)
{
    return ioctl(fd, _IOWR(0xdb, method, uint64_t), message);
}

static int open_device(void)
{
    struct message message;
    const int fd = open("/dev/infiniband/uverbs0", O_RDWR | O_CLOEXEC);
    NEED(fd >= 0);
    begin(&message, DEVICE, 0);
    add(&message, NUM_COMP_VECTORS, MANDATORY | OUT, NULL, 4);
    add(&message, CORE_SUPPORT, MANDATORY | OUT, NULL, 8);
    NEED(call(fd, &message, DEVICE_OPEN) == 0);
    return fd;
}

/* Creates an object with these ranges. Returns its handle, or -1 with errno. `offset`: of the first range, or NULL. */
static int create_on(int fd, const struct range *ranges, unsigned count, uint32_t fails, uint64_t *offset)
{
    struct message message;
    begin(&message, SHARER, 0);
    add(&message, RANGES, MANDATORY, ranges, (uint16_t)(count * sizeof *ranges));
    if (fails)
        add(&message, FAILS, MANDATORY, &fails, sizeof fails);
    const uint32_t *first = add(&message, FIRST, MANDATORY | OUT, NULL, sizeof *first);
    const uint64_t *at = add(&message, OFFSET, MANDATORY | OUT, NULL, sizeof *at);
    if (call(fd, &message, CREATE) != 0)
        return -1;
    uint32_t seen, own;
    memcpy(&seen, first, sizeof seen);
    memcpy(&own, (const void *)(uintptr_t)ranges[0].address, sizeof own);
    NEED(seen == own); /* the content is kept */
    if (offset)
        memcpy(offset, at, sizeof *offset);
    return (int)message.header.object;
}

static int create(const struct range *ranges, unsigned count)
{
    return create_on(device, ranges, count, 0, NULL);
}

static void destroy(int handle)
{
    struct message message;
    begin(&message, SHARER, (uint32_t)handle);
    NEED(call(device, &message, DESTROY) == 0);
}

/* Pages of malloc, each filled with its number. */
static volatile uint32_t *pages_of(size_t bytes, uint32_t number)
{
    void *memory;
    NEED(posix_memalign(&memory, PAGE, bytes) == 0);
    for (size_t i = 0; i < bytes / 4; i++)
        ((uint32_t *)memory)[i] = number;
    return memory;
}

static struct range range_of(volatile uint32_t *memory, size_t bytes)
{
    return (struct range){(uintptr_t)memory, bytes};
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The device answers a store, without a call. */
static void ring(volatile uint32_t *range, uint32_t value)
{
    const double end = seconds() + LIMIT;
    range[DOORBELL] = value;
    while (range[ECHO] != value) {
        NEED(seconds() < end);
        sched_yield();
    }
}

/* Whether an address is in a mapping of a context's file that `sharing` ('s' or 'p') describes. */
static bool is_mapped(volatile uint32_t *memory, char sharing)
{
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    NEED(maps);
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        char rights[5];
        if (strstr(line, "/memfd:userdma-context") && sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 &&
            rights[3] == sharing && (uintptr_t)memory >= start && (uintptr_t)memory < end)
            found = true;
    }
    fclose(maps);
    return found;
}

/* No process shares the memory. */
static void need_ordinary(volatile uint32_t *memory)
{
    NEED(!is_mapped(memory, 's') && !is_mapped(memory, 'p'));
    memory[100] = 5;
    const pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        memory[100] = 6;
        _exit(0);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && status == 0);
    NEED(memory[100] == 5);
}

static void share(void)
{
    volatile uint32_t *queue = pages_of(16 * PAGE, 7), *record = pages_of(PAGE, 8);
    const struct range ranges[] = {range_of(queue, 16 * PAGE), range_of(record, PAGE)};
    uint64_t offset;
    for (uint32_t round = 1; round <= 3; round++) {
        const int handle = create_on(device, ranges, 2, 0, &offset);
        NEED(handle >= 0);
        NEED(queue[0] == 7 && queue[4096] == 7 && record[0] == 8 && record[1023] == 8);
        NEED(is_mapped(queue, 's') && is_mapped(record, 's'));
        volatile uint32_t *file = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, (off_t)offset);
        NEED(file != MAP_FAILED);
        ring(queue, 100 * round);
        ring(record, 100 * round + 1);
        NEED(file[DOORBELL] == 100 * round);
        destroy(handle);
        NEED(queue[DOORBELL] == 100 * round && record[ECHO] == 100 * round + 1 && queue[4096] == 7 && record[0] == 8);
        need_ordinary(queue);
        need_ordinary(record);
        queue[DOORBELL] = 1;
        NEED(file[DOORBELL] != 1);
        NEED(munmap((void *)file, PAGE) == 0);
    }
    free((void *)queue);
    free((void *)record);
}

static void unmapped(void)
{
    volatile uint32_t *queue = pages_of(4 * PAGE, 7), *record = pages_of(PAGE, 8), *other = pages_of(PAGE, 9);
    const struct range ranges[] = {range_of(queue, 4 * PAGE), range_of(record, PAGE), range_of(other, PAGE)};
    const int handle = create(ranges, 3);
    NEED(handle >= 0);
    NEED(munmap((void *)(queue + 1024), PAGE) == 0 && munmap((void *)record, PAGE) == 0);
    NEED(mprotect((void *)other, PAGE, PROT_NONE) == 0);
    destroy(handle);
    NEED(!is_mapped(queue + 1024, 'p') && !is_mapped(record, 'p') && !is_mapped(record, 's'));
    need_ordinary(queue);
    need_ordinary(queue + 2048);
    NEED(queue[4] == 7 && queue[2048] == 7);
}

static void fork_case(void)
{
    volatile uint32_t *queue = pages_of(2 * PAGE, 7), *own = pages_of(PAGE, 8);
    const struct range range = range_of(queue, 2 * PAGE), child_range = range_of(own, PAGE);
    const int handle = create(&range, 1);
    NEED(handle >= 0);
    ring(queue, 1);
    const pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        NEED(is_mapped(queue, 'p') && !is_mapped(queue, 's') && queue[DOORBELL] == 1 && queue[1024] == 7);
        queue[DOORBELL] = 2;
        queue[1024] = 9;
        /* The child shares pages of its own. */
        NEED(create(&child_range, 1) >= 0);
        ring(own, 77);
        NEED(queue[ECHO] == 1);
        close(device);
        need_ordinary(queue);
        need_ordinary(own);
        NEED(queue[1024] == 9);
        _exit(0);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && status == 0);
    NEED(queue[DOORBELL] == 1 && queue[1024] == 7 && own[DOORBELL] == 8);
    ring(queue, 3);
    destroy(handle);
    need_ordinary(queue);
}

static void close_case(void)
{
    volatile uint32_t *queue = pages_of(2 * PAGE, 7), *gone = pages_of(64 * PAGE, 8);
    const struct range range = range_of(queue, 2 * PAGE), unmapped = range_of(gone, 64 * PAGE);
    NEED(create(&range, 1) >= 0 && create(&unmapped, 1) >= 0);
    ring(queue, 1);
    /* The program has other memory where it should have pages that the device shares. */
    volatile uint32_t *other = mmap((void *)gone, 64 * PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    NEED(other == gone);
    const int copy = dup(device);
    close(device);
    ring(queue, 2);
    NEED(is_mapped(queue, 's'));
    close(copy);
    need_ordinary(queue);
    NEED(queue[DOORBELL] == 2);
    /* Another context shares the same memory. */
    device = open_device();
    const int handle = create(&range, 1);
    NEED(handle >= 0);
    ring(queue, 3);
    destroy(handle);
    need_ordinary(queue);
}

/* Words of a page in which each thread has its own. */
static volatile uint32_t *shared_page;
static int page_users;
static int page_handle;
static pthread_mutex_t page_lock = PTHREAD_MUTEX_INITIALIZER;

static void *thread(void *argument)
{
    const uint32_t number = (uint32_t)(uintptr_t)argument;
    volatile uint32_t *queue = pages_of(3 * PAGE, number), *word = shared_page + 64 * number;
    const struct range range = range_of(queue, 3 * PAGE), page = range_of(shared_page, PAGE);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        *word = 1000 * number + round;
        pthread_mutex_lock(&page_lock);
        if (page_users++ == 0) {
            page_handle = create(&page, 1);
            NEED(page_handle >= 0);
        }
        pthread_mutex_unlock(&page_lock);
        const int handle = create(&range, 1);
        NEED(handle >= 0);
        ring(queue, round);
        NEED(queue[2048] == number && *word == 1000 * number + round);
        destroy(handle);
        pthread_mutex_lock(&page_lock);
        if (--page_users == 0)
            destroy(page_handle);
        pthread_mutex_unlock(&page_lock);
        NEED(*word == 1000 * number + round);
    }
    return NULL;
}

static void threads(void)
{
    pthread_t ids[THREADS];
    shared_page = pages_of(PAGE, 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        NEED(pthread_create(&ids[i], NULL, thread, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        NEED(pthread_join(ids[i], NULL) == 0);
    need_ordinary(shared_page);
}

static bool is_racing = true;

static void *store(void *argument)
{
    volatile uint32_t *word = argument;
    for (uint32_t value = 1; __atomic_load_n(&is_racing, __ATOMIC_RELAXED); value++) {
        *word = value;
        for (int i = 0; i < 20; i++)
            NEED(*word == value);
    }
    return NULL;
}

/* Whether the kernel write-protects pages of shared memory, for a userfaultfd. */
static bool can_protect(void)
{
    const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    const bool can = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 && (api.features & WP_SHARED);
    close(fd);
    return can;
}

static void race(void)
{
    volatile uint32_t *page = pages_of(PAGE, 7);
    const struct range range = range_of(page, PAGE);
    pthread_t id;
    if (!can_protect())
        return;
    NEED(pthread_create(&id, NULL, store, (void *)(page + 100)) == 0);
    for (int i = 0; i < RACES; i++) {
        const int handle = create_on(device, &range, 1, 0, NULL);
        NEED(handle >= 0);
        destroy(handle);
    }
    __atomic_store_n(&is_racing, false, __ATOMIC_RELAXED);
    NEED(pthread_join(id, NULL) == 0);
}

static void refuse(volatile void *address, uint64_t bytes, int error)
{
    const struct range range = {(uintptr_t)address, bytes};
    struct message message;
    begin(&message, SHARER, 0);
    add(&message, RANGES, MANDATORY, &range, sizeof range);
    add(&message, FIRST, MANDATORY | OUT, NULL, 4);
    add(&message, OFFSET, MANDATORY | OUT, NULL, 8);
    errno = 0;
    if (call(device, &message, CREATE) == 0 || errno != error)
        printf("%p, %llx bytes: %s, not %s\n", (void *)(uintptr_t)address, (unsigned long long)bytes, strerror(errno),
               strerror(error));
    NEED(errno == error);
}

static void hostile(void)
{
    volatile uint32_t *queue = pages_of(4 * PAGE, 7);
    struct range range = range_of(queue, 4 * PAGE);
    refuse((char *)queue + 8, PAGE, EINVAL);
    refuse(queue, PAGE + 8, EINVAL);
    refuse(queue, 0, EINVAL);
    refuse(NULL, PAGE, EFAULT);
    refuse(queue, 1ull << 40, EFAULT);
    refuse((void *)(uintptr_t)(UINT64_MAX - PAGE + 1), PAGE, EFAULT);
    refuse((void *)(uintptr_t)(1ull << 63), PAGE, EFAULT);
    volatile uint32_t *constant = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    refuse(constant, PAGE, EFAULT);
    volatile uint32_t *with_others = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    refuse(with_others, PAGE, EFAULT);
    /* The context's own file, and more memory than it has. */
    volatile uint32_t *file = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, PAGE);
    NEED(file != MAP_FAILED);
    refuse(file, PAGE, EFAULT);
    void *huge = mmap(NULL, 1ull << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(huge != MAP_FAILED);
    refuse(huge, 1ull << 40, ENOMEM);
    /* Overlapping ranges, in one call and in two. */
    const struct range twice[] = {range_of(queue, 2 * PAGE), range_of(queue + 1024, PAGE)};
    NEED(create(twice, 2) < 0 && errno == EINVAL);
    const int handle = create(&range, 1);
    NEED(handle >= 0);
    refuse(queue + 1024, PAGE, EINVAL);
    refuse(queue, 4 * PAGE, EINVAL);
    const int other = device;
    device = open_device();
    refuse(queue, 4 * PAGE, EINVAL);
    close(device);
    device = other;
    ring(queue, 5);
    destroy(handle);
    need_ordinary(queue);
    /* More than SessionLimits.mappings ranges. */
    volatile uint32_t *nine = pages_of(9 * PAGE, 1);
    struct range ranges[9];
    for (int i = 0; i < 9; i++)
        ranges[i] = range_of(nine + 1024 * i, PAGE);
    NEED(create(ranges, 9) < 0 && errno == EINVAL);
    const int eight = create(ranges, 8);
    NEED(eight >= 0);
    for (int i = 0; i < 8; i++)
        ring(nine + 1024 * i, 5);
    destroy(eight);
    need_ordinary(nine);
    need_ordinary(nine + 7 * 1024);
    /* The device serves the program still. */
    volatile uint32_t *last = pages_of(PAGE, 1);
    range = range_of(last, PAGE);
    NEED(create(&range, 1) >= 0);
    ring(last, 6);
}

static void fails(void)
{
    volatile uint32_t *queue = pages_of(4 * PAGE, 7);
    const struct range range = range_of(queue, 4 * PAGE);
    for (int i = 0; i < 3; i++) {
        NEED(create_on(device, &range, 1, 1, NULL) < 0 && errno == EPROTO);
        need_ordinary(queue);
    }
    const int handle = create(&range, 1);
    NEED(handle >= 0);
    ring(queue, 1);
    destroy(handle);
    need_ordinary(queue);
}

/* vm.max_map_count. */
static size_t max_mappings(void)
{
    size_t most = 0;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    NEED(file && fscanf(file, "%zu", &most) == 1);
    fclose(file);
    return most;
}

static void full(void)
{
    const size_t most = 1 << 18;
    if (max_mappings() > most - 1000)
        return; /* a system for programs with very many mappings */
    const size_t bytes = 3 * PAGE;
    /* In the middle of a mapping: two more mappings are needed. */
    char *area = mmap(NULL, 9 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(area != MAP_FAILED);
    volatile uint32_t *queue = (uint32_t *)(area + 3 * PAGE);
    queue[0] = 7;
    const struct range range = range_of(queue, bytes);
    /* The library gets its own memory. */
    volatile uint32_t *first = pages_of(PAGE, 1);
    const struct range first_range = range_of(first, PAGE);
    const int first_handle = create(&first_range, 1);
    NEED(first_handle >= 0);
    destroy(first_handle);
    /* Mappings that do not merge, until there may be no more. */
    char *many = mmap(NULL, most * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(many != MAP_FAILED);
    size_t used = 0;
    while (used + 2 <= most && mprotect(many + (used + 1) * PAGE, PAGE, PROT_NONE) == 0)
        used += 2;
    NEED(used + 2 <= most && errno == ENOMEM);
    NEED(create(&range, 1) < 0 && errno == ENOMEM);
    NEED(queue[0] == 7 && munmap(many, most * PAGE) == 0);
    need_ordinary(queue);
    const int handle = create(&range, 1);
    NEED(handle == first_handle); /* the lowest handle: the object of the refused call is gone */
    ring(queue, 1);
    destroy(handle);
    need_ordinary(queue);
}

static void many(void)
{
    static int handles[MANY];
    static volatile uint32_t *queues[MANY];
    for (int i = 0; i < MANY; i++) {
        queues[i] = pages_of(2 * PAGE, (uint32_t)i);
        const struct range range = range_of(queues[i], 2 * PAGE);
        handles[i] = create(&range, 1);
        NEED(handles[i] >= 0);
    }
    for (int i = 0; i < MANY; i++)
        ring(queues[i], 1000 + (uint32_t)i);
    for (int i = 0; i < MANY; i += 2)
        destroy(handles[i]);
    for (int i = 0; i < MANY; i++)
        NEED(queues[i][DOORBELL] == 1000 + (uint32_t)i && queues[i][1024] == (uint32_t)i &&
             is_mapped(queues[i], 's') == (i % 2 == 1));
    close(device);
    for (int i = 0; i < MANY; i++)
        NEED(queues[i][DOORBELL] == 1000 + (uint32_t)i && queues[i][1024] == (uint32_t)i && !is_mapped(queues[i], 's'));
}

static void stack(void)
{
    /* the frames of the call are below this one */
    volatile char deep[8 * PAGE];
    for (size_t i = 0; i < sizeof deep; i += PAGE)
        deep[i] = 0;
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0) / PAGE * PAGE;
    volatile uint32_t *low = (uint32_t *)((uintptr_t)deep / PAGE * PAGE - 3 * PAGE);
    const struct range range = {(uintptr_t)low, here + PAGE - (uintptr_t)low};
    for (size_t at = 0; at < range.bytes; at += PAGE)
        (void)low[at / 4];
    const int handle = create(&range, 1);
    NEED(handle >= 0);
    NEED(is_mapped((uint32_t *)here, 's'));
    destroy(handle);
    NEED(!is_mapped((uint32_t *)here, 's'));
    NEED(create(&range, 1) >= 0);
    close(device);
    NEED(!is_mapped((uint32_t *)here, 's'));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"share", share}, {"fork", fork_case}, {"close", close_case}, {"threads", threads}, {"race", race},
                 {"hostile", hostile}, {"fails", fails}, {"full", full}, {"many", many}, {"unmapped", unmapped},
                 {"stack", stack}};
    for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            device = open_device();
            cases[i].run();
            printf("good\n");
            return 0;
        }
    fprintf(stderr, "usage: adopted share|fork|close|threads|race|hostile|fails|full|many|stack|unmapped\n");
    return 1;
}
