/*
 * Whether anything is on its way: TCP connections of the session have sent what is not acknowledged (it may be held
 * back by Nagle's algorithm or a delayed acknowledgement), or the kernel has received packets of this machine that it
 * has not delivered yet, or packets wait in the queue of a net's link, or a disk works for requests that no thread
 * waits for.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of a program: most sessions have no TCP sockets, and to look for them takes some time. */
EXPORT int socket(int family, int type, int protocol)
{
    const int fd = NEXT(socket)(family, type, protocol);
    if (clock_page && (family == AF_INET || family == AF_INET6) && (type & 15) == SOCK_STREAM)
        __atomic_store_n(&clock_page->has_tcp, 1, __ATOMIC_RELEASE);
    return fd;
}

/* Where the kernel's tcp_info has the peer's window, since Linux 5.5; the C library's ends before. */
#define WINDOW 228

/*
 * Whether a socket of TCP has sent something that is not acknowledged, or holds back what the peer has room for, by
 * TCP_CORK or MSG_MORE. False: it is another socket too.
 */
static bool is_in_flight(int fd)
{
    union {
        struct tcp_info info;
        uint8_t bytes[256];
    } answer;
    socklen_t size = sizeof answer;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &answer, &size) != 0)
        return false;
    if (answer.info.tcpi_state == TCP_SYN_SENT || answer.info.tcpi_unacked != 0)
        return true;
    uint32_t window;
    int unsent = 0;
    memcpy(&window, answer.bytes + WINDOW, sizeof window);
    return size >= WINDOW + sizeof window && ioctl(fd, SIOCOUTQNSD, &unsent) == 0 && unsent > 0 && (uint32_t)unsent <= window;
}

/* By the kernel's table at `path`, where the socket itself must not be looked at. */
static bool is_in_flight_by(const char *path, unsigned long inode)
{
    FILE *const table = fopen(path, "re");
    char line[256];
    bool found = false;
    while (table && !found && fgets(line, sizeof line, table)) {
        /*
         * number: address, address, state (2: SYN_SENT), bytes that are not acknowledged:received, …, the inode as the
         * 10th
         */
        unsigned state, unacknowledged;
        unsigned long number;
        found = sscanf(line, " %*u: %*s %*s %x %x:%*x %*s %*s %*s %*s %lu", &state, &unacknowledged, &number) == 3 &&
                number == inode && (state == 2 || unacknowledged != 0);
    }
    if (table)
        fclose(table);
    return found;
}

static bool is_in_flight_in_table(pid_t pid, const char *target)
{
    char path[64];
    const unsigned long inode = strtoul(target + sizeof "socket:[" - 1, NULL, 10);
    for (int version = 4; version <= 6; version += 2) {
        snprintf(path, sizeof path, "/proc/%d/net/tcp%s", pid, version == 6 ? "6" : "");
        if (is_in_flight_by(path, inode))
            return true;
    }
    return false;
}

int clock_take(pid_t pid, int fd)
{
    const int process = (int)NEXT(syscall)(SYS_pidfd_open, pid, 0);
    if (process < 0)
        return -1;
    const int taken = (int)NEXT(syscall)(SYS_pidfd_getfd, process, fd, 0);
    const int saved = errno;
    close(process);
    errno = saved;
    return taken;
}

/* Whether no socket of a process has. It may be in a network namespace of its own. */
static bool sockets_are_quiet(pid_t pid)
{
    char path[64], target[32];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *const folder = opendir(path);
    if (!folder)
        return true;
    bool is_quiet = true;
    for (const struct dirent *entry; is_quiet && (entry = readdir(folder)) != NULL;) {
        const ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        if (length < 7 || memcmp(target, "socket:", 7) != 0)
            continue;
        target[length] = 0;
        const int fd = clock_take(pid, atoi(entry->d_name));
        if (fd >= 0) {
            is_quiet = !is_in_flight(fd);
            close(fd);
        } else if (clock_is_refused(errno)) {
            is_quiet = !is_in_flight_in_table(pid, target);
        }
    }
    closedir(folder);
    return is_quiet;
}

/* Whether no processor has packets that its kernel thread has still to deliver. */
static bool backlog_is_empty(void)
{
    static int fd = -1;
    static char text[65536];
    if (fd < 0)
        fd = (int)NEXT(syscall)(SYS_openat, AT_FDCWD, "/proc/net/softnet_stat", O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd < 0 ? 0 : pread(fd, text, sizeof text - 1, 0);
    if (length <= 0)
        return true;
    text[length] = 0;
    for (char *line = text; *line;) {
        char *at = line;
        unsigned long value = 0;
        /* The 12th number, since Linux 5.10: packets that wait. */
        for (int i = 0; i < 12 && at; i++) {
            char *end;
            value = strtoul(at, &end, 16);
            at = end == at ? NULL : end;
        }
        if (at && value != 0)
            return false;
        line = strchr(line, '\n');
        if (!line++)
            break;
    }
    return true;
}

enum { MAX_NAMESPACES = 256 };
/* Of namespaces whose links have queues: sockets by which the kernel tells how long these are. */
static int watched[MAX_NAMESPACES];
static uint32_t watched_count;

/*
 * Of the process of the keeper, before this begins: links of the network namespace at `path` have queues. 0, or -errno.
 * The calling thread is in this namespace for a moment.
 */
EXPORT int userdma_clock_watch(const char *path)
{
    if (watched_count == MAX_NAMESPACES)
        return -ENOSPC;
    const int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), other = open(path, O_RDONLY | O_CLOEXEC);
    int result = -1;
    if (own >= 0 && other >= 0 && setns(other, CLONE_NEWNET) == 0) {
        result = NEXT(socket)(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        const int error = errno;
        if (setns(own, CLONE_NEWNET) != 0)
            abort(); /* it must not go on in the other one */
        errno = error;
    }
    const int error = errno;
    close(own);
    close(other);
    if (result < 0)
        return -error;
    watched[watched_count++] = result;
    return 0;
}

/* Whether the queues of a part of an answer are empty; `is_over`: it was the last part. */
static bool queues_are_empty(const char *answer, ssize_t length, bool *is_over)
{
    bool are_empty = true;
    for (const struct nlmsghdr *head = (const struct nlmsghdr *)answer; NLMSG_OK(head, length); head = NLMSG_NEXT(head, length)) {
        if (head->nlmsg_type != RTM_NEWQDISC) {
            *is_over = true;
            return are_empty;
        }
        const struct tcmsg *const body = NLMSG_DATA(head);
        int left = (int)(head->nlmsg_len - NLMSG_LENGTH(sizeof *body));
        for (const struct rtattr *at = (const struct rtattr *)(body + 1); RTA_OK(at, left); at = RTA_NEXT(at, left))
            if (at->rta_type == TCA_STATS && RTA_PAYLOAD(at) >= offsetof(struct tc_stats, backlog) &&
                ((const struct tc_stats *)RTA_DATA(at))->qlen != 0)
                are_empty = false;
    }
    return are_empty;
}

/* Whether no packet waits in a queue of a link. */
static bool links_are_empty(int socket)
{
    static char answer[65536] __attribute__((aligned(NLMSG_ALIGNTO)));
    static uint32_t sequence;
    struct {
        struct nlmsghdr head;
        struct tcmsg body;
    } request = {.head = {.nlmsg_len = sizeof request,
                          .nlmsg_type = RTM_GETQDISC,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                          .nlmsg_seq = ++sequence}};
    if (NEXT(send)(socket, &request, sizeof request, 0) < 0)
        return true;
    bool is_empty = true;
    for (bool is_over = false; !is_over;) {
        const ssize_t length = NEXT(recv)(socket, answer, sizeof answer, 0);
        if (length <= 0)
            return true;
        /* The rest of the answer is read too. */
        is_empty = queues_are_empty(answer, length, &is_over) && is_empty;
    }
    return is_empty;
}

static bool all_links_are_empty(void)
{
    for (uint32_t i = 0; i < watched_count; i++)
        if (!links_are_empty(watched[i]))
            return false;
    return true;
}

/* Whether a process of the session has a context for requests of io_submit(2). */
static bool has_contexts;

static void look_for_contexts(void)
{
    has_contexts = false;
    for (uint32_t i = 0; i < clock_used_processes() && !has_contexts; i++) {
        const uint32_t pid = clock_page->processes[i].pid;
        char path[64], line[512];
        snprintf(path, sizeof path, "/proc/%u/maps", pid);
        FILE *const maps = pid == 0 ? NULL : fopen(path, "re");
        while (maps && !has_contexts && fgets(line, sizeof line, maps))
            has_contexts = strstr(line, " /[aio]") != NULL;
        if (maps)
            fclose(maps);
    }
}

/* No thread waits in the kernel for requests of io_submit(2): whether any disk of the machine has requests. */
static bool disks_are_quiet(void)
{
    static char known[32] = "0\n";
    char contexts[32] = "", line[512];
    FILE *const number = fopen("/proc/sys/fs/aio-nr", "re");
    if (!number || !fgets(contexts, sizeof contexts, number))
        strcpy(contexts, known);
    if (number)
        fclose(number);
    if (strcmp(contexts, known) != 0) {
        strcpy(known, contexts);
        look_for_contexts();
    }
    FILE *const disks = has_contexts ? fopen("/proc/diskstats", "re") : NULL;
    unsigned long requests = 0;
    /* The 12th number: requests that have not ended. */
    while (disks && requests == 0 && fgets(line, sizeof line, disks))
        sscanf(line, "%*u %*u %*s %*u %*u %*u %*u %*u %*u %*u %*u %lu", &requests);
    if (disks)
        fclose(disks);
    return requests == 0;
}

bool clock_has_ways(void)
{
    return watched_count > 0 || has_contexts || __atomic_load_n(&clock_page->has_tcp, __ATOMIC_ACQUIRE);
}

bool clock_network_is_quiet(void)
{
    /* Packets pass from queues of links to backlogs, and back. */
    if (!all_links_are_empty() || !backlog_is_empty() || !all_links_are_empty() || !disks_are_quiet())
        return false;
    if (!__atomic_load_n(&clock_page->has_tcp, __ATOMIC_ACQUIRE))
        return true;
    for (uint32_t i = 0; i < clock_used_processes(); i++) {
        const uint32_t pid = clock_page->processes[i].pid;
        if (pid != 0 && !clock_page->processes[i].is_daemon && !sockets_are_quiet((pid_t)pid))
            return false;
    }
    return true;
}
