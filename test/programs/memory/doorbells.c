/*
 * Doorbell pages of the test driver test/system/devices/doorbells.mjs: stores to them wake a sleeping daemon. Its
 * completion queues are such pages, found in /proc/self/maps.
 *
 *   doorbells CASE [DAEMON_PID]
 *
 * CASE:
 *
 *   wake      stores ROUNDS times while the page is protected; prints the median and least times of the store and of
 *             the echo
 *   awake     stores ROUNDS times, without waiting for protection; prints how many stores were at an unprotected page
 *   threads   a thread for each of PAGES pages, and a second one for each page, store at the same time
 *   unmap     unmaps protected pages by munmap and by a new mapping, and stores to the last one
 *   move      stores to a page that mremap has moved
 *   fork      a child stores, after a call to the device, then its parent
 *   exec      execs itself with `wake`, while a page is protected
 *   dies      stores while the daemon is stopped, then kills the daemon: the store returns
 *   refused   as awake, after a seccomp filter which refuses userfaultfd with EPERM
 *   many      maps MANY pages, stores to each
 *   hold      prints "held", and waits until standard input ends
 *
 * Each prints "good" at its end.
 */
#define _GNU_SOURCE
#include "../endpoint.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define ROUNDS 20
#define PAGES 4
#define MANY 300
#define PAGE 4096
/* Words of the page, as in the driver. */
#define DOORBELL (4088 / 4)
#define ECHO (4092 / 4)
/* Seconds until a missing echo is a failure. */
#define LIMIT 20

static volatile uint32_t *pages[MANY + 1];
static int page_count;
static struct ibv_context *context;
static int pagemap = -1;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

/* Pages of memory files of contexts that this process maps for writing. */
static void find_pages(void)
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    NEED(maps, "/proc/self/maps: %s", strerror(errno));
    page_count = 0;
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (!strstr(line, "/memfd:userdma-context") || sscanf(line, "%lx-%lx rw-s", &start, &end) != 2)
            continue;
        for (; start < end && page_count <= MANY; start += PAGE)
            pages[page_count++] = (volatile uint32_t *)start;
    }
    fclose(maps);
}

static void open_pages(int count)
{
    int devices;
    struct ibv_device **list = ibv_get_device_list(&devices);
    NEED(list && devices == 1, "%d devices", devices);
    context = ibv_open_device(list[0]);
    NEED(context, "ibv_open_device: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        NEED(ibv_create_cq(context, 1, NULL, NULL, 0), "ibv_create_cq: %s", strerror(errno));
    ibv_free_device_list(list);
    find_pages();
    NEED(page_count == count, "%d pages, not %d", page_count, count);
}

/* Bit 57 of the entry: write-protected by userfaultfd. */
static bool is_protected(volatile uint32_t *page)
{
    uint64_t entry = 0;
    if (pagemap < 0)
        pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    NEED(pread(pagemap, &entry, sizeof entry, (uintptr_t)page / PAGE * 8) == sizeof entry, "pagemap: %s",
         strerror(errno));
    return entry >> 57 & 1;
}

static void until_protected(volatile uint32_t *page)
{
    const double end = seconds() + LIMIT;
    while (!is_protected(page)) {
        NEED(seconds() < end, "the page is not protected after %d s", LIMIT);
        sched_yield();
    }
}

static void until_echo(volatile uint32_t *page, uint32_t value)
{
    const double end = seconds() + LIMIT;
    while (page[ECHO] != value) {
        NEED(seconds() < end, "no echo of %u after %d s", value, LIMIT);
        sched_yield();
    }
}

static void ring(volatile uint32_t *page, uint32_t value)
{
    page[DOORBELL] = value;
    until_echo(page, value);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void wake(void)
{
    double stores[ROUNDS], echoes[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        until_protected(pages[0]);
        const double start = seconds();
        pages[0][DOORBELL] = 1000 + i;
        const double stored = seconds();
        until_echo(pages[0], 1000 + i);
        stores[i] = stored - start;
        echoes[i] = seconds() - start;
    }
    qsort(stores, ROUNDS, sizeof *stores, compare);
    qsort(echoes, ROUNDS, sizeof *echoes, compare);
    printf("store %.1f us (least %.1f), echo %.1f us (least %.1f)\n", stores[ROUNDS / 2] * 1e6, stores[0] * 1e6,
           echoes[ROUNDS / 2] * 1e6, echoes[0] * 1e6);
}

static void awake(void)
{
    int unprotected = 0;
    for (int i = 1; i <= ROUNDS; i++) {
        unprotected += !is_protected(pages[0]);
        ring(pages[0], i);
    }
    printf("%d unprotected\n", unprotected);
}

static pthread_barrier_t barrier;

static void *store_echo(void *page)
{
    pthread_barrier_wait(&barrier);
    ring(page, 7);
    return NULL;
}

static void *store_other(void *page)
{
    pthread_barrier_wait(&barrier);
    ((volatile uint32_t *)page)[DOORBELL - 1] = 1;
    return NULL;
}

static void threads(void)
{
    pthread_t ids[2 * PAGES];
    pthread_barrier_init(&barrier, NULL, 2 * PAGES + 1);
    for (int i = 0; i < 2 * PAGES; i++)
        NEED(pthread_create(&ids[i], NULL, i < PAGES ? store_echo : store_other, (void *)pages[i % PAGES]) == 0,
             "pthread_create");
    for (int i = 0; i < PAGES; i++)
        until_protected(pages[i]);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 2 * PAGES; i++)
        pthread_join(ids[i], NULL);
}

static void unmap(void)
{
    for (int i = 0; i < PAGES; i++)
        until_protected(pages[i]);
    NEED(munmap((void *)pages[0], PAGE) == 0, "munmap: %s", strerror(errno));
    NEED(mmap((void *)pages[1], PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
             pages[1],
         "mmap: %s", strerror(errno));
    pages[1][DOORBELL] = 1;
    ring(pages[2], 3);
    until_protected(pages[3]);
    ring(pages[3], 3);
}

static void move(void)
{
    until_protected(pages[0]);
    void *at = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile uint32_t *moved = mremap((void *)pages[0], PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at);
    NEED(moved == at, "mremap: %s", strerror(errno));
    moved[DOORBELL] = 5;
    until_protected(pages[1]);
    ring(pages[1], 5);
    until_echo(moved, 5);
}

static void forks(void)
{
    until_protected(pages[0]);
    const pid_t child = fork();
    if (child == 0) {
        struct ibv_port_attr port;
        pagemap = -1;
        NEED(ibv_query_port(context, 1, &port) == 0, "ibv_query_port: %s", strerror(errno));
        wake();
        exit(0);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && status == 0, "the child has ended with status %d", status);
    wake();
}

static void *store_value(void *page)
{
    ((volatile uint32_t *)page)[DOORBELL] = 9;
    return NULL;
}

static void dies(pid_t daemon)
{
    pthread_t id;
    char text[256], path[64];
    until_protected(pages[0]);
    NEED(kill(daemon, SIGSTOP) == 0, "kill: %s", strerror(errno));
    snprintf(path, sizeof path, "/proc/%d/stat", daemon);
    /* Until the daemon is stopped. */
    for (char state = 0; state != 'T';) {
        FILE *stat = fopen(path, "r");
        NEED(stat && fgets(text, sizeof text, stat) && strrchr(text, ')'), "%s", path);
        fclose(stat);
        state = strrchr(text, ')')[2];
    }
    NEED(is_protected(pages[0]), "the page is not protected any more");
    NEED(pthread_create(&id, NULL, store_value, (void *)pages[0]) == 0, "pthread_create");
    NEED(pthread_tryjoin_np(id, NULL) == EBUSY, "the store did not wait");
    NEED(pages[0][DOORBELL] != 9, "the store did not wait");
    NEED(kill(daemon, SIGKILL) == 0, "kill: %s", strerror(errno));
    pthread_join(id, NULL);
    NEED(pages[0][DOORBELL] == 9, "the store was lost");
    pages[0][DOORBELL] = 10;
}

static void refuse_userfaultfd(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0,
         "cannot: seccomp: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    static const char *const cases[] = {"wake", "awake", "threads", "unmap", "move", "fork",
                                        "exec", "dies",  "refused", "many",  "hold"};
    bool is_case = false;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        is_case |= strcmp(name, cases[i]) == 0;
    if (!is_case)
        fail("usage: doorbells CASE [DAEMON_PID]");
    const bool is_refused = strcmp(name, "refused") == 0;
    if (is_refused)
        refuse_userfaultfd();
    open_pages(strcmp(name, "many") == 0 ? MANY : PAGES);
    if (strcmp(name, "wake") == 0)
        wake();
    else if (strcmp(name, "awake") == 0 || is_refused)
        awake();
    else if (strcmp(name, "threads") == 0)
        threads();
    else if (strcmp(name, "unmap") == 0)
        unmap();
    else if (strcmp(name, "move") == 0)
        move();
    else if (strcmp(name, "fork") == 0)
        forks();
    else if (strcmp(name, "dies") == 0)
        dies(argc > 2 ? atoi(argv[2]) : 0);
    else if (strcmp(name, "many") == 0)
        for (int i = 0; i < MANY; i++)
            ring(pages[i], i + 1);
    else if (strcmp(name, "hold") == 0) {
        puts("held");
        fflush(stdout);
        while (getchar() != EOF)
            ;
    } else if (strcmp(name, "exec") == 0) {
        until_protected(pages[0]);
        execl("/proc/self/exe", argv[0], "wake", NULL);
        fail("exec: %s", strerror(errno));
    } else
        fail("unknown case \"%s\"", name);
    puts("good");
    return 0;
}
