/*
 * A client that becomes another program by exec, for test/host/owner.test.ts. Each of its programs has a page at PLACE.
 *
 *   identity client [keep] PROGRAM    prints "ready", waits for a line, then executes "PROGRAM victim"; `keep`: a child
 *                                     shares its address space and exists longer than the exec
 *   identity victim                   prints "victim UID"; at the end of its input prints whether its page is "intact"
 *   identity alone                    prints "ready"; at each line of input switches PR_SET_DUMPABLE off or on and
 *                                     prints "done"
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PLACE ((char *)0x2000000000)
#define PAGE 4096

static void print_line(const char *text)
{
    puts(text);
    fflush(stdout);
}

static char *page(char fill)
{
    char *at = mmap(PLACE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (at != PLACE)
        exit(2);
    return memset(at, fill, PAGE);
}

/* Waits until the other end of standard input is closed. */
static int keeper(void *unused)
{
    struct pollfd input = {.fd = 0};
    (void)unused;
    while (poll(&input, 1, -1) < 0)
        continue;
    return 0;
}

static int line(void)
{
    char c;
    ssize_t got;
    while ((got = read(0, &c, 1)) == 1 && c != '\n')
        continue;
    return got == 1;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "victim") == 0) {
        char *mine = page('s');
        printf("victim %d\n", (int)geteuid());
        fflush(stdout);
        while (line())
            continue;
        for (int i = 0; i < PAGE; i++)
            if (mine[i] != 's')
                return print_line("overwritten"), 1;
        return print_line("intact"), 0;
    }
    if (strcmp(mode, "alone") != 0 && strcmp(mode, "client") != 0)
        return print_line("usage: identity client [keep] PROGRAM | identity victim | identity alone"), 1;
    page('c');
    print_line("ready");
    if (strcmp(mode, "alone") == 0) {
        for (int dumpable = 0; line(); dumpable = !dumpable) {
            prctl(PR_SET_DUMPABLE, dumpable);
            print_line("done");
        }
        return 0;
    }
    static char stack[65536] __attribute__((aligned(16)));
    if (!line())
        return 0;
    if (argc == 4 && clone(keeper, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL) < 0)
        return 2;
    execl(argv[argc - 1], "identity", "victim", NULL);
    return 2;
}
