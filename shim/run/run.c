/*
 * `userdma run` for its common case, in a tenth of the time that Node.js needs to start (docs/decisions/starts.md): a
 * daemon of this version serves the socket, there is no option but `--socket`, and the program is one that loads the
 * preload library. All else, messages among it, is left to Node.js: `bin/userdma`, which starts this program, is run
 * again. What is done here does the same as src/cli/commands/run.ts; test/system/starts.test.ts compares both.
 *
 * It is linked statically: no preload library of the user, and no C library that differs, keeps it from starting.
 */
#define _GNU_SOURCE
#include "../protocol.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Tells bin/userdma not to start this program. */
#define NODE "USERDMA_NODE"
#if defined __x86_64__
#define MACHINE EM_X86_64
#elif defined __aarch64__
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_NONE
#endif

extern char **environ;

/* bin/userdma, and the arguments of `userdma`. */
static char **arguments;

__attribute__((noreturn)) static void leave_to_node(void)
{
    /* In the place of our own name. */
    arguments[-1] = "sh";
    setenv(NODE, "1", 1);
    execv("/bin/sh", &arguments[-1]);
    perror("userdma: /bin/sh");
    _exit(127);
}

static char *joined(const char *first, const char *second, const char *third)
{
    char *text;
    if (asprintf(&text, "%s%s%s", first, second, third) < 0)
        leave_to_node();
    return text;
}

/* ---- the socket, as src/daemon/client/user-socket.ts finds it ---- */

/* An absolute path that Node's resolve() would leave as it is. */
static bool is_plain_path(const char *path)
{
    while (*path == '/') {
        const size_t length = strcspn(++path, "/");
        if (length == 0 || (length <= 2 && strncmp(path, "..", length) == 0))
            return false;
        path += length;
    }
    return *path == 0;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static const char *user_folder(void)
{
    struct stat status;
    const char *runtime = variable("XDG_RUNTIME_DIR");
    if (runtime && *runtime == '/' && lstat(runtime, &status) == 0 && S_ISDIR(status.st_mode) &&
        status.st_uid == geteuid())
        return joined(runtime, "/userdma", "");
    const char *names[] = {"TMPDIR", "TMP", "TEMP"};
    const char *folder = "/tmp";
    for (int i = 2; i >= 0; i--)
        if (variable(names[i]))
            folder = variable(names[i]);
    char user[16];
    snprintf(user, sizeof user, "%u", geteuid());
    return joined(folder, "/userdma-", user);
}

/* The socket of --socket or of the environment, else of the user's own daemon. */
static const char *socket_path(const char *option)
{
    const char *path = option ? option : variable(USERDMA_ENV_SOCKET);
    if (!path) {
        struct stat status;
        const char *folder = user_folder();
        if (lstat(folder, &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid() ||
            (status.st_mode & 077) != 0)
            leave_to_node();
        path = joined(folder, "/sock", "");
    }
    if (!is_plain_path(path) || strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        leave_to_node();
    return path;
}

/* ---- the session, which keeps the daemon alive ---- */

static pid_t daemon_pid;

/* Whether it has connected to a path with a suffix. */
static bool connects(int fd, const char *path, const char *suffix)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    return snprintf(address.sun_path, sizeof address.sun_path, "%s%s", path, suffix) < (int)sizeof address.sun_path &&
           connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
}

static int open_session(const char *path)
{
    /* For a backlog that is full. */
    const struct timeval patience = {.tv_sec = USERDMA_CONNECT_SECONDS};
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct ucred server = {.uid = (uid_t)-1};
    socklen_t length = sizeof server;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (fd < 0 || !((geteuid() == 0 && connects(fd, path, USERDMA_OWN_SUFFIX)) || connects(fd, path, "")) ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &length) != 0 ||
        (server.uid != 0 && server.uid != geteuid()))
        leave_to_node();
    daemon_pid = server.pid;
    struct {
        struct userdma_header header;
        struct userdma_hello hello;
    } request = {.header = {.type = USERDMA_HELLO,
                            .size = sizeof request,
                            .serial = 1,
                            .fd = -1,
                            .pid = (uint32_t)getpid(),
                            .tid = (uint32_t)getpid()},
                 .hello = {.version = USERDMA_SESSION_VERSION}};
    struct {
        struct userdma_header header;
        struct userdma_hello_reply hello;
    } reply;
    /* Descriptors of the answer are closed by the kernel: there is no room for them. */
    if (send(fd, &request, sizeof request, MSG_NOSIGNAL) != sizeof request ||
        recv(fd, &reply, sizeof reply, 0) != sizeof reply || reply.header.type != (USERDMA_REPLY | USERDMA_HELLO) ||
        reply.hello.version != USERDMA_SESSION_VERSION || (reply.hello.error != 0 && reply.hello.error != EACCES))
        leave_to_node();
    return fd;
}

/* ---- the program ---- */

/* The path of an executable file, as src/cli/program/program.ts finds it; NULL: none. */
static const char *find_program(const char *name)
{
    struct stat status;
    if (strchr(name, '/'))
        return access(name, X_OK) == 0 && stat(name, &status) == 0 && S_ISREG(status.st_mode) ? name : NULL;
    const char *folder = getenv("PATH");
    for (folder = folder ? folder : ""; *name;) {
        const size_t length = strcspn(folder, ":");
        char path[PATH_MAX];
        const int size = snprintf(path, sizeof path, "%.*s%s%s", (int)length, folder, length > 0 ? "/" : "./", name);
        if (size < (int)sizeof path && access(path, X_OK) == 0 && stat(path, &status) == 0 && S_ISREG(status.st_mode))
            return joined(path, "", "");
        if (folder[length] == 0)
            return NULL;
        folder += length + 1;
    }
    return NULL;
}

/* Whether the file is one into which the dynamic linker of glibc loads the preload library. */
static bool loads_libraries(const char *path)
{
    Elf64_Ehdr header;
    struct stat status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool loads = false;
    if (fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & (S_ISUID | S_ISGID)) == 0 &&
        pread(fd, &header, sizeof header, 0) == sizeof header && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
        header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_machine == MACHINE &&
        header.e_phentsize == sizeof(Elf64_Phdr)) {
        for (unsigned i = 0; i < header.e_phnum && !loads; i++) {
            Elf64_Phdr entry;
            char linker[64] = "";
            const off_t at = (off_t)(header.e_phoff + i * sizeof entry);
            if (pread(fd, &entry, sizeof entry, at) != sizeof entry)
                break;
            loads = entry.p_type == PT_INTERP && entry.p_filesz < sizeof linker &&
                    pread(fd, linker, entry.p_filesz, (off_t)entry.p_offset) == (ssize_t)entry.p_filesz &&
                    strstr(linker, "/ld-linux") != NULL;
        }
    }
    if (fd >= 0)
        close(fd);
    return loads;
}

/*
 * Whether a command line starts no other program that src/cli/program/started-programs.ts would look at: no argument
 * names one, or is a line of a shell.
 */
static bool starts_no_other(const char *path, char *const *args)
{
    const char *slash = strrchr(path, '/');
    /* Of `env`, which has its program also in the argument -S. */
    if (strcmp(slash ? slash + 1 : path, "env") == 0)
        return false;
    for (; *args; args++)
        if (strpbrk(*args, " \t\n;&|()") || find_program(*args))
            return false;
    return true;
}

static bool has_low_limits(void)
{
    static const struct {
        int resource;
        rlim_t enough;
    } limits[] = {
        {RLIMIT_AS, USERDMA_LOW_ADDRESS_SPACE},   {RLIMIT_DATA, USERDMA_LOW_DATA},
        {RLIMIT_STACK, USERDMA_LOW_STACK},        {RLIMIT_FSIZE, USERDMA_LOW_FILE_SIZE},
        {RLIMIT_NPROC, USERDMA_LOW_PROCESSES},    {RLIMIT_NOFILE, USERDMA_LOW_OPEN_FILES},
        {RLIMIT_CPU, USERDMA_LOW_CPU_TIME},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        if (getrlimit(limits[i].resource, &limit) != 0 || limit.rlim_cur < limits[i].enough)
            return true;
    }
    return false;
}

/* ---- its environment ---- */

/* The preload library beside this program. */
static const char *preload_library(void)
{
    char path[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        leave_to_node();
    path[length] = 0;
    *strrchr(path, '/') = 0;
    const char *library = joined(path, "/libuserdma_shim.so", "");
    if (access(library, F_OK) != 0 || strpbrk(library, " \t\n\v\f\r:"))
        leave_to_node();
    return library;
}

static bool is_own_library(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && (strcmp(slash, "/libuserdma_shim.so") == 0 || strcmp(slash, "/libuserdma_waits.so") == 0 ||
                     strcmp(slash, "/libuserdma_frees.so") == 0 || strcmp(slash, "/libuserdma_clock.so") == 0);
}

static void set_environment(const char *preload, const char *socket)
{
    const char *others = getenv("LD_PRELOAD");
    char *copy = joined(others ? others : "", "", "");
    for (char *path; (path = strsep(&copy, " \t\n\v\f\r:"));)
        if (*path && !is_own_library(path))
            preload = joined(preload, ":", path);
    const char *own[] = {USERDMA_ENV_TAG,   USERDMA_ENV_STACKS,  USERDMA_ENV_BUFFERS,
                         USERDMA_ENV_SLOTS, USERDMA_ENV_CRASHES, USERDMA_ENV_CLOCK};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        unsetenv(own[i]);
    setenv("LD_PRELOAD", preload, 1);
    setenv(USERDMA_ENV_SOCKET, socket, 1);
}

/* ---- its life ---- */

/* As Node.js starts its programs: all signals have their default actions, also those that were ignored. */
static void reset_signals(void)
{
    const struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < 32; number++)
        sigaction(number, &action, NULL);
}

/* Standard descriptors that are closed become /dev/null, and none is non-blocking. */
static void set_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0) {
            if (open("/dev/null", O_RDWR) != fd)
                leave_to_node();
        } else if (flags & O_NONBLOCK) {
            fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
        }
    }
}

static bool has_terminal(void)
{
    const int fd = open("/dev/tty", O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* In the child: becomes the program, or tells why not by closing `failure` with a byte in it. */
static void become(const char *path, char **args, const char *preload, const char *socket, int failure)
{
    sigset_t none;
    struct rlimit files;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* Node.js does so for itself and its programs */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    set_environment(preload, socket);
    execv(path, args);
    (void)!write(failure, "", 1);
    _exit(127);
}

/* Starts the program; -1 if that fails. */
static pid_t start(const char *path, char **args, const char *preload, const char *socket)
{
    int failure[2];
    char byte;
    if (pipe2(failure, O_CLOEXEC) != 0)
        return -1;
    const pid_t child = fork();
    if (child == 0)
        become(path, args, preload, socket, failure[1]);
    close(failure[1]);
    /* Nothing comes if the program runs. */
    const bool has_failed = child > 0 && read(failure[0], &byte, 1) > 0;
    close(failure[0]);
    if (has_failed)
        waitpid(child, NULL, 0);
    return has_failed ? -1 : child;
}

/* Passes signals on, and says if the daemon ends, until the program ends: its status, as of waitpid(2). */
static int wait_for(pid_t child, const char *program, int signals, int session, const char *socket)
{
    const bool by_terminal = has_terminal();
    struct pollfd files[] = {{.fd = signals, .events = POLLIN}, {.fd = session, .events = POLLIN}};
    for (;;) {
        struct signalfd_siginfo info;
        char message[64];
        int status;
        if (poll(files, 2, -1) < 0)
            continue;
        if (files[0].revents && read(signals, &info, sizeof info) == sizeof info) {
            const int number = (int)info.ssi_signo;
            if (number == SIGCHLD && waitpid(child, &status, WNOHANG) == child)
                return status;
            /* These two come from the terminal, which sends them to the program too. */
            if (number != SIGCHLD && !(by_terminal && (number == SIGINT || number == SIGQUIT)))
                kill(child, number);
        }
        if (files[1].revents) {
            const ssize_t length = recv(session, message, sizeof message, MSG_DONTWAIT);
            if (length > 0 || (length < 0 && errno == EAGAIN))
                continue;
            fprintf(stderr, "userdma: the daemon at %s (process %d) ended while %s was running\n", socket,
                    (int)daemon_pid, program);
            files[1].fd = -1;
        }
    }
}

/* As src/host/end-by-signal.ts: without a core dump. */
static int end_as(int status, const sigset_t *waited)
{
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0) {
        reset_signals();
        sigprocmask(SIG_UNBLOCK, waited, NULL);
        kill(getpid(), WTERMSIG(status));
    }
    return 128 + WTERMSIG(status);
}

/* userdma-run SCRIPT run [--socket PATH] [--] PROGRAM [ARGUMENT...]; SCRIPT: bin/userdma */
int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    arguments = argv + 1;
    char **args = argv + 3;
    const char *option = NULL;
    for (; *args && **args == '-'; args++) {
        if (strcmp(*args, "--") == 0) {
            args++;
            break;
        }
        if (strncmp(*args, "--socket=", 9) == 0)
            option = *args + 9;
        else if (strcmp(*args, "--socket") == 0 && args[1])
            option = *++args;
        else
            leave_to_node();
    }
    const char *path = *args ? find_program(*args) : NULL;
    if (!path || !loads_libraries(path) || !starts_no_other(path, args + 1) || has_low_limits())
        leave_to_node();
    const char *preload = preload_library();
    const char *socket = socket_path(option);
    set_standard_descriptors();
    reset_signals();
    /* A clock that skips: a library more, and a line about it at the end. */
    if (access(joined(socket, USERDMA_CLOCK_SUFFIX, ""), F_OK) == 0)
        leave_to_node();
    const int session = open_session(socket);

    const int numbers[] = {SIGHUP, SIGTERM, SIGUSR1, SIGUSR2, SIGCONT, SIGINT, SIGQUIT, SIGCHLD};
    sigset_t waited, before;
    sigemptyset(&waited);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&waited, numbers[i]);
    /* Before the program is started: a signal meanwhile is passed on afterwards. */
    sigprocmask(SIG_BLOCK, &waited, &before);
    signal(SIGPIPE, SIG_IGN);
    const int signals = signalfd(-1, &waited, SFD_CLOEXEC);
    const pid_t child = signals < 0 ? -1 : start(path, args, preload, socket);
    if (child < 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        leave_to_node(); /* which says why */
    }
    return end_as(wait_for(child, *args, signals, session, socket), &waited);
}
