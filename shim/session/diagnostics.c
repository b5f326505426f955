/*
 * Messages on standard error: why a program with USERDMA_SOCKET has no device, and what to do.
 */
#define _GNU_SOURCE
#include "connection.h"

#include <poll.h>
#include <stdio.h>
#include <sys/prctl.h>

__thread bool diagnostics_are_silent __attribute__((tls_model("initial-exec")));

/* Prints only at the first call, in this process and its later children. */
static void print_once(const char *subject, const char *reason)
{
    static bool is_printed;
    if (is_printed || diagnostics_are_silent)
        return;
    is_printed = true;
    /* A pipe without a reader would raise SIGPIPE, and a full pipe block. */
    struct pollfd output = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&output, 1, 0) <= 0 || output.revents != POLLOUT)
        return;
    dprintf(STDERR_FILENO, "userdma: %s at %s: %s\n", subject, shim_socket_path, reason);
}

void diagnose_no_daemon(const char *reason)
{
    print_once("no daemon", reason);
}

void diagnose_other_version(void)
{
    print_once("the daemon", "it is of another version than this program's preload library; start the program with "
                             "`userdma run`, in an environment without USERDMA_SOCKET");
}

void diagnose_untrusted_daemon(uid_t daemon_user)
{
    char reason[256], user[48];
    user_text(daemon_user, user, sizeof user);
    snprintf(reason, sizeof reason,
             "it runs as %s, who could read and change this program's memory; only daemons of root and of user %u are "
             "used: start one of your own (`userdma run --private`)",
             user, (unsigned)geteuid());
    print_once("the daemon", reason);
}

static bool can_enter_socket_folder(void)
{
    char folder[sizeof shim_socket_path];
    memcpy(folder, shim_socket_path, sizeof folder);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return true; /* the current folder */
    slash[slash == folder] = '\0'; /* keeps "/" */
    return REAL(euidaccess)(folder, X_OK) == 0;
}

void diagnose_refused_user(void)
{
    const unsigned user = geteuid(), outer = outer_user(user);
    char allow[128], reason[256];
    if (!can_enter_socket_folder()) {
        snprintf(reason, sizeof reason,
                 "the folder of the socket is closed to user %u; start the daemon with --socket in a folder that this "
                 "user may enter",
                 user);
        print_once("the daemon", reason);
        return;
    }
    /* Root's daemon in our user namespace serves its root, so the daemon that refuses that user is outside. */
    if (outer == user || user == 0)
        snprintf(allow, sizeof allow, "`--allow-user %u`", outer);
    else
        snprintf(allow, sizeof allow, "`--allow-user %u`, or outside this user namespace with `--allow-user %u`", user,
                 outer);
    snprintf(reason, sizeof reason, "it does not serve user %u; root's daemon does if it is started with %s", user,
             allow);
    print_once("the daemon", reason);
}

/* Whether a process is in another PID namespace. pid 0: one outside ours. False if that cannot be read. */
static bool in_other_namespace(pid_t pid)
{
    char path[64], its[64], ours[64];
    if (pid == 0)
        return true;
    snprintf(path, sizeof path, "/proc/%d/ns/pid", (int)pid);
    const long its_length = syscall(SYS_readlinkat, AT_FDCWD, path, its, sizeof its);
    const long our_length = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/ns/pid", ours, sizeof ours);
    return its_length > 0 && our_length > 0 && (its_length != our_length || memcmp(its, ours, (size_t)our_length) != 0);
}

void diagnose_memory_access(const struct ucred *daemon)
{
    char reason[320];
    /* Only daemons of root and of our user are trusted (connect.c). */
    if (daemon->uid != geteuid())
        snprintf(reason, sizeof reason,
                 "it runs as root without the right to access the memory of this program of user %u (CAP_SYS_PTRACE); "
                 "give it that, or start it as user %u",
                 (unsigned)geteuid(), (unsigned)geteuid());
    else if (prctl(PR_GET_DUMPABLE) != 1)
        snprintf(reason, sizeof reason,
                 "it may not access the memory of this program, which is not dumpable (as after setuid); start the "
                 "daemon as root");
    else if (in_other_namespace(daemon->pid))
        snprintf(reason, sizeof reason,
                 "it is in another PID namespace and cannot access this program's memory: run both in one container, or "
                 "in one pod with shareProcessNamespace, or the daemon on the host (as root if "
                 "/proc/sys/kernel/yama/ptrace_scope is not 0)");
    else
        snprintf(reason, sizeof reason,
                 "the system does not let it access this program's memory; see "
                 "/proc/sys/kernel/yama/ptrace_scope and the container's rules, or start the daemon as root");
    print_once("the daemon", reason);
}

void diagnose_no_provider(const char *device, const char *driver, const char *verbs)
{
    char reason[512];
    snprintf(reason, sizeof reason,
             "libibverbs (%.256s) has no provider for %s, lib%s-rdmav*.so; install ibverbs-providers (Debian), or an "
             "rdma-core with it",
             verbs, device, driver);
    print_once("no device of the daemon", reason);
}
