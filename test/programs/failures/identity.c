/*
 * A client that becomes another program by exec, for test/host/owner.test.ts. Each program maps a page at PAGE_ADDRESS.
 * Also a process without a main thread, for test/host/memory/process.test.ts.
 *
 *   identity client [keep] PROGRAM    prints "ready", waits for a line, then executes "PROGRAM victim"; `keep`: a child
 *                                     shares the client's address space and outlives the exec
 *   identity victim                   prints "victim" and its effective UID; at the end of its input prints "intact" or
 *                                     "overwritten" about its page
 *   identity alone                    prints "ready"; at each line of input switches PR_SET_DUMPABLE, first off, and
 *                                     prints "done"
 *   identity threads COUNT            prints how many threads have started, and ends the main thread
 */
#define _GNU_SOURCE
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PAGE_ADDRESS ((char *)0x2000000000)
#define PAGE 4096

static void print_line(const char *text)
{
    puts(text);
    fflush(stdout);
}

static char *map_page(char fill)
{
    char *page = mmap(PAGE_ADDRESS, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (page != PAGE_ADDRESS)
        exit(2);
    return memset(page, fill, PAGE);
}

static int wait_for_hangup(void *unused)
{
    struct pollfd input = {.fd = 0};
    (void)unused;
    while (poll(&input, 1, -1) < 0)
        continue;
    return 0;
}

static void *wait_in_thread(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void start_threads(int count)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int started = 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
    while (started < count && pthread_create(&thread, &attributes, wait_in_thread, NULL) == 0)
        started++;
    printf("%d\n", started);
    fflush(stdout);
    pthread_exit(NULL);
}

/* Returns 0 at the end of the input. */
static int read_line(void)
{
    char c;
    ssize_t length;
    while ((length = read(0, &c, 1)) == 1 && c != '\n')
        continue;
    return length == 1;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "victim") == 0) {
        char *bytes = map_page('s');
        printf("victim %d\n", (int)geteuid());
        fflush(stdout);
        while (read_line())
            continue;
        for (int i = 0; i < PAGE; i++)
            if (bytes[i] != 's')
                return print_line("overwritten"), 1;
        return print_line("intact"), 0;
    }
    if (strcmp(mode, "threads") == 0 && argc == 3)
        start_threads(atoi(argv[2]));
    if (strcmp(mode, "alone") != 0 && strcmp(mode, "client") != 0)
        return print_line("usage: identity client [keep] PROGRAM | victim | alone | threads COUNT"), 1;
    map_page('c');
    print_line("ready");
    if (strcmp(mode, "alone") == 0) {
        for (int dumpable = 0; read_line(); dumpable = !dumpable) {
            prctl(PR_SET_DUMPABLE, dumpable);
            print_line("done");
        }
        return 0;
    }
    static char stack[65536] __attribute__((aligned(16)));
    const int keep = argc == 4;
    if (!read_line())
        return 0;
    if (keep && clone(wait_for_hangup, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL) < 0)
        return 2;
    execl(argv[argc - 1], "identity", "victim", NULL);
    return 2;
}
