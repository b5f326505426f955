/*
 * The connection to the daemon: one per process, opened when it is first needed, used by one thread at a time.
 *
 * A request is one message and its reply (exchange.c). Meanwhile signals are blocked: a handler's ioctl() would fail,
 * because its thread holds the lock. If the daemon does not answer for UNBLOCK_SECONDS, signals are unblocked, so that
 * Ctrl-C, siglongjmp or pthread_cancel can end the call. The thread then waits without the lock, on its own connection,
 * and other threads open another connection (detached.c).
 *
 * After fork, the child closes its copy of the socket and opens its own connection. It attaches inherited contexts
 * (ATTACH) on first use. A vfork child has its parent's memory and must not use the connection: its calls get EIO, and
 * it finds no devices. A program may close the socket by raw system calls, so session_ensure_connected compares inodes.
 *
 * If the daemon has ended, a send fails or the stream ends, and the call returns EIO. Contexts of that daemon stay
 * dead. Opening a device or an RDMA path connects again: another daemon may serve the same path.
 */
#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>


pid_t shim_pid;
struct session session = {.fd = -1};
__thread pid_t session_thread_id __attribute__((tls_model("initial-exec")));
/* Error-checking: a recursive call, from another preload library say, gets EIO and not a deadlock. */
pthread_mutex_t session_lock = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;

/* ---- lock ---- */

void shim_guard_enter(struct shim_guard *guard)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &guard->mask);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &guard->cancel_state);
}

void shim_guard_leave(const struct shim_guard *guard)
{
    pthread_setcancelstate(guard->cancel_state, NULL);
    pthread_sigmask(SIG_SETMASK, &guard->mask, NULL);
}

void session_leave(const struct shim_guard *guard)
{
    int saved = errno;
    pthread_mutex_unlock(&session_lock);
    shim_guard_leave(guard);
    errno = saved;
}

/* ---- socket and fork ---- */

void session_forget_socket(void)
{
    if (session.fd >= 0)
        fd_forget_hidden(session.fd);
    session.fd = -1;
    slot_unmap(&session.slot);
}

void session_disconnect(void)
{
    int fd = session.fd;
    session_forget_socket();
    if (fd >= 0)
        REAL(close)(fd);
}

void session_take_socket(int fd)
{
    struct stat stat = {0};
    REAL(fstat)(fd, &stat);
    session.fd = fd;
    session.dev = stat.st_dev;
    session.ino = stat.st_ino;
    session.user = geteuid();
    if (++session.generation == 0)
        session.generation = 1;
}

void session_check_socket(void)
{
    struct stat stat;
    if (session.fd >= 0 && (REAL(fstat)(session.fd, &stat) != 0 || stat.st_ino != session.ino ||
                            stat.st_dev != session.dev))
        session_forget_socket();
}

/*
 * A byte that fork clears: nonzero in the process that owns this memory, and in its vfork children. NULL if the system
 * cannot clear pages.
 */
static char *fork_mark;

static void create_fork_mark(void)
{
    void *page = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || madvise(page, 1, MADV_WIPEONFORK) != 0)
        return;
    fork_mark = page;
    *fork_mark = 1;
}

static bool has_fork_mark(void)
{
    return fork_mark && *fork_mark;
}

/*
 * The lock is made anew: a thread that the child does not have may hold it. Our copies of the parent's connections must
 * not keep them alive.
 */
IN_CHILD static void after_fork(void)
{
    static const pthread_mutex_t fresh = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
    session_lock = fresh;
    fd_after_fork();
    adopted_in_child();
    peers_in_child();
    shim_pid = getpid();
    if (fork_mark)
        *fork_mark = 1;
    session_thread_id = 0;
    session.slot = NULL; /* not inherited */
    detached_close_all();
    session_check_socket();
    session_disconnect();
    if (requests_are_noted)
        outstanding_child();
}

static void in_child(void)
{
    sanitizers_after_fork();
    adopted_after_fork();
    after_fork();
}

bool session_take_lock(void)
{
    const bool is_other = shim_is_other_process();
    if (UNLIKELY(is_other) && !has_fork_mark())
        after_fork(); /* a fork that ran no handlers */
    if (pthread_mutex_lock(&session_lock) != 0)
        return false;
    session.is_in_vfork_child = is_other && shim_is_other_process();
    return true;
}

bool session_enter(struct shim_guard *guard)
{
    shim_guard_enter(guard);
    if (session_take_lock()) {
        detached_close_abandoned((uintptr_t)__builtin_frame_address(0));
        return true;
    }
    shim_guard_leave(guard);
    errno = EIO;
    return false;
}

static void before_fork(void)
{
    if (recorder_is_on)
        program_forks();
    adopted_before_fork();
    peers_before_fork();
    sanitizers_before_fork();
}

static void in_parent(void)
{
    sanitizers_after_fork();
    peers_in_parent();
    adopted_after_fork();
}

void session_own_process(void)
{
    create_fork_mark();
    pthread_atfork(before_fork, in_parent, in_child);
}

bool session_ensure_connected(const struct shim_guard *guard, bool must_be_alive)
{
    if (session.is_in_vfork_child)
        return false; /* `session` is the parent's */
    session_check_socket();
    if (session.fd >= 0 && must_be_alive) {
        struct pollfd hung = {.fd = session.fd};
        if (poll(&hung, 1, 0) > 0)
            session_disconnect();
    }
    return session.fd >= 0 || session_connect(guard);
}

void session_moved(int old_fd, int new_fd)
{
    if (session.fd == old_fd)
        session.fd = new_fd;
    detached_moved(old_fd, new_fd);
}

uint16_t session_generation(void)
{
    return session.generation;
}

bool session_is_connected(void)
{
    return session.fd >= 0;
}

bool session_root(char root[sizeof session.root])
{
    struct shim_guard guard;
    int saved = errno;
    if (!session_enter(&guard))
        return false;
    const bool is_connected = session_ensure_connected(&guard, true);
    if (is_connected)
        memcpy(root, session.root, sizeof session.root);
    /* The program has changed its user: its devices stay, but the files of the tree are not those of the new user. */
    if (is_connected && UNLIKELY(session.user != geteuid()) && REAL(eaccess)(session.root, X_OK) != 0)
        diagnose_refused_user();
    errno = is_connected ? saved : session_no_device_errno();
    session_leave(&guard);
    return is_connected;
}

bool session_root_silently(char root[sizeof session.root])
{
    diagnostics_are_silent = true;
    const bool has_root = session_root(root);
    diagnostics_are_silent = false;
    return has_root;
}
