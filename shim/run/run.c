/*
 * `userdma run` for its common case, in a tenth of the time that Node.js needs to start (docs/decisions/starts.md):
 * there is no option but `--socket`, `--private` and those of a private daemon, a daemon of this version serves the
 * socket or is started here, and the program is one that loads the preload library. All else, messages among it, is
 * left to Node.js: `bin/userdma`, which starts this program, is run again. What is done here does the same as
 * src/cli/commands/run.ts; test/system/starts.test.ts compares both.
 *
 * It is linked statically: no preload library of the user, and no C library that differs, keeps it from starting.
 */
#define _GNU_SOURCE
#include "../protocol.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

static const char *temporary_folder(void)
{
    const char *names[] = {"TMPDIR", "TMP", "TEMP"};
    for (int i = 0; i < 3; i++)
        if (variable(names[i]))
            return variable(names[i]);
    return "/tmp";
}

static const char *user_folder(void)
{
    struct stat status;
    const char *runtime = variable("XDG_RUNTIME_DIR");
    if (runtime && *runtime == '/' && lstat(runtime, &status) == 0 && S_ISDIR(status.st_mode) &&
        status.st_uid == geteuid())
        return joined(runtime, "/userdma", "");
    char user[16];
    snprintf(user, sizeof user, "%u", geteuid());
    return joined(temporary_folder(), "/userdma-", user);
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

/* A connected socket; -1, with errno: there is none. */
static int connection(const char *path)
{
    /* For a backlog that is full. */
    const struct timeval patience = {.tv_sec = USERDMA_CONNECT_SECONDS};
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if ((geteuid() == 0 && connects(fd, path, USERDMA_OWN_SUFFIX)) || connects(fd, path, ""))
        return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* Of a failed connection: nobody serves the path. */
static bool is_unserved(void)
{
    return errno == ENOENT || errno == ECONNREFUSED;
}

static void open_session(int fd)
{
    struct ucred server = {.uid = (uid_t)-1};
    socklen_t length = sizeof server;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &length) != 0 ||
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

/* ---- the program's environment ---- */

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

/* Takes userdma's libraries out of LD_PRELOAD, and puts `preload` there if it is not NULL. */
static void set_preloaded(const char *preload)
{
    const char *others = getenv("LD_PRELOAD");
    char *copy = joined(others ? others : "", "", "");
    for (char *path; (path = strsep(&copy, " \t\n\v\f\r:"));)
        if (*path && !is_own_library(path))
            preload = preload ? joined(preload, ":", path) : path;
    if (preload)
        setenv("LD_PRELOAD", preload, 1);
    else
        unsetenv("LD_PRELOAD");
}

static void set_environment(const char *preload, const char *socket)
{
    const char *own[] = {USERDMA_ENV_TAG,   USERDMA_ENV_STACKS,  USERDMA_ENV_BUFFERS,
                         USERDMA_ENV_SLOTS, USERDMA_ENV_CRASHES, USERDMA_ENV_CLOCK};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        unsetenv(own[i]);
    set_preloaded(preload);
    setenv(USERDMA_ENV_SOCKET, socket, 1);
}

/* ---- its start ---- */

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

/* ---- a daemon that is started here, as src/cli/start.ts and src/cli/join.ts do ---- */

static struct {
    /* 0: none was started. */
    pid_t process;
    const char *log;
    /* Of a private daemon, with the descriptor by which it is kept; NULL: it is the user's. */
    const char *folder;
} started;

/* For a daemon that ends before the program does. */
#define LAST_LINES 5
#define LAST_BYTES 4096

/* In milliseconds: of a daemon that is not ready a line tells; a private one that does not end is killed. */
#define LATE_START 20000
#define END_TIMEOUT 5000

/* Options of Node.js may open an inspector; a daemon, whose folder is another, finds Node.js by absolute paths only. */
static bool may_start_daemon(void)
{
    const char *path = getenv("PATH");
    if (variable("NODE_OPTIONS"))
        return false;
    while (path && *path == '/') {
        path = strchr(path, ':');
        if (!path)
            return true;
        path++;
    }
    return false;
}

static bool is_one_of(const char *name, const char *const names[])
{
    while (*names && strcmp(name, *names) != 0)
        names++;
    return *names != NULL;
}

static const char *const flags[] = {"--ignore-memlock", "--allow-faults", NULL};
static const char *const valued[] = {"--link", "--path", "--timers", "--torment", "--torment-kinds", NULL};

/* Whether an option is the daemon's alone: Node.js would pass it on. */
static bool is_passed(const char *name, const char *value)
{
    if (is_one_of(name, valued))
        return true;
    /* Node.js says it where the name is an adapter's, and the driver rxe. */
    if (strcmp(name, "--device") == 0)
        return strncmp(value, "rxe", 3) == 0 || strstr(value, ",driver=");
    /* A call site needs stacks. */
    return strcmp(name, "--fault") == 0 && !strstr(value, "site=");
}

/* What the daemon gets: options of the command line, each with its value. */
static char **passed;
static size_t passed_count;

/* Takes an option of a private daemon, and returns its last argument; NULL: it is another. */
static char **pass_option(char **option)
{
    const size_t length = strcspn(*option, "=");
    if (is_one_of(*option, flags)) {
        passed[passed_count++] = *option;
        return option;
    }
    char *const name = strndup(*option, length);
    char **const last = (*option)[length] ? option : option + 1;
    char *const value = last == option ? *option + length + 1 : *last;
    if (!name || !value || !is_passed(name, value))
        return NULL;
    passed[passed_count++] = name;
    passed[passed_count++] = value;
    return last;
}

/* In the child. */
static void become_daemon(const char *socket, int output)
{
    sigset_t none;
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC), log = open(started.log, O_WRONLY | O_APPEND | O_CLOEXEC);
    setsid();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (nothing < 0 || log < 0 || chdir("/") != 0 || dup2(nothing, 0) < 0 || dup2(output, 1) < 0 || dup2(log, 2) < 0 ||
        (syscall(SYS_close_range, 3u, ~0u, 0u) != 0))
        _exit(127);
    set_preloaded(NULL);
    const char *own[] = {USERDMA_ENV_TAG, USERDMA_ENV_SOCKET, USERDMA_ENV_CLOCK, "NODE_EXTRA_CA_CERTS", NODE};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        unsetenv(own[i]);
    const char *const first[] = {"sh", arguments[0], "daemon", "--background", "--end-with-last-client", "--socket", socket};
    const size_t count = sizeof first / sizeof *first;
    const char *words[count + passed_count + 2];
    memcpy(words, first, sizeof first);
    memcpy(words + count, passed, passed_count * sizeof *passed);
    words[count + passed_count] = started.folder ? "--remove-folder" : NULL;
    words[count + passed_count + 1] = NULL;
    execv("/bin/sh", (char **)(uintptr_t)words);
    _exit(127);
}

/* Whether the daemon has printed that it is ready. */
static bool is_ready(int output)
{
    char line[PATH_MAX + 256];
    size_t length = 0;
    bool is_late = false;
    while (length < sizeof line && !memchr(line, '\n', length)) {
        struct pollfd file = {.fd = output, .events = POLLIN};
        if (poll(&file, 1, is_late ? -1 : LATE_START) == 0) {
            fprintf(stderr, "userdma: the daemon (process %d) is still starting\n", (int)started.process);
            is_late = true;
            continue;
        }
        const ssize_t count = read(output, line + length, sizeof line - length);
        if (count <= 0)
            return false;
        length += (size_t)count;
    }
    return length >= strlen(USERDMA_LINE_READY) && memcmp(line, USERDMA_LINE_READY, strlen(USERDMA_LINE_READY)) == 0;
}

/* Starts a daemon at `socket` whose standard error is `started.log`. If it does not get ready, Node.js says why. */
static void start_daemon(const char *socket)
{
    int output[2];
    const char *script = realpath(arguments[0], NULL);
    const int log = open(started.log, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (!script || log < 0 || flock(log, LOCK_SH | LOCK_NB) != 0 || pipe2(output, O_CLOEXEC) != 0)
        leave_to_node();
    arguments[0] = (char *)(uintptr_t)script;
    started.process = fork();
    if (started.process == 0)
        become_daemon(socket, output[1]);
    close(output[1]);
    const bool is_serving = started.process > 0 && is_ready(output[0]);
    close(output[0]);
    if (!is_serving) {
        unlink(started.log);
        leave_to_node();
    }
}

/* A private daemon. Returns its socket. */
static const char *start_private(void)
{
    char *folder = joined(temporary_folder(), "/userdma-private-XXXXXX", "");
    /* On a host of a net it would take settings of that host. */
    if (!may_start_daemon() || variable(USERDMA_ENV_SOCKET) || !is_plain_path(folder) || !mkdtemp(folder) || chmod(folder, 0700) != 0 ||
        flock(open(folder, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), LOCK_SH | LOCK_NB) != 0)
        leave_to_node();
    started.folder = folder;
    started.log = joined(folder, "/daemon.log", "");
    const char *socket = joined(folder, "/sock", "");
    start_daemon(socket);
    return socket;
}

/* The user's daemon, where there is none. */
static void start_own(const char *socket)
{
    uint64_t number;
    char version[16], name[32];
    snprintf(version, sizeof version, ".v%u", USERDMA_SESSION_VERSION);
    if (!may_start_daemon() || access(joined(socket, version, ""), F_OK) == 0 ||
        getrandom(&number, sizeof number, 0) != sizeof number)
        leave_to_node();
    const char *log = joined(user_folder(), "/daemon.log", "");
    snprintf(name, sizeof name, ".%016llx.new", (unsigned long long)number);
    started.log = joined(log, name, "");
    start_daemon(socket);
    if (rename(started.log, log) == 0)
        started.log = log;
}

/* The end of a sentence: the last lines of the log, but for notes of the daemon. */
static void print_last_lines(void)
{
    char text[LAST_BYTES + 1];
    const char *lines[LAST_LINES];
    unsigned count = 0;
    const int fd = started.log ? open(started.log, O_RDONLY | O_CLOEXEC) : -1;
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        return;
    const off_t from = status.st_size > LAST_BYTES ? status.st_size - LAST_BYTES : 0;
    const ssize_t length = pread(fd, text, LAST_BYTES, from);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line && strncmp(line, USERDMA_LINE_NOTE, strlen(USERDMA_LINE_NOTE)) != 0)
            lines[count++ % LAST_LINES] = line;
    if (count > 0)
        fprintf(stderr, "; its last output:");
    for (unsigned i = count > LAST_LINES ? count - LAST_LINES : 0; i < count; i++)
        fprintf(stderr, "\n%s", lines[i % LAST_LINES]);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

/* Waits for the end of a private daemon, whose last client has closed its session, and for that of its folder. */
static void end_private(const char *socket, int signals)
{
    struct signalfd_siginfo info;
    struct pollfd file = {.fd = signals, .events = POLLIN};
    while (waitpid(started.process, NULL, WNOHANG) == 0)
        if (poll(&file, 1, END_TIMEOUT) <= 0 || read(signals, &info, sizeof info) != sizeof info)
            kill(started.process, SIGKILL);
    /* It was killed: else it has removed the folder. */
    if (connection(socket) < 0 && is_unserved())
        nftw(started.folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- the program's life ---- */

/* Passes signals on, and says if the daemon ends, until the program ends. Returns its status, that of waitpid(2). */
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
            fprintf(stderr, "userdma: the daemon at %s (process %d) ended while %s was running", socket,
                    (int)daemon_pid, program);
            print_last_lines();
            fputc('\n', stderr);
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

/* userdma-run SCRIPT run [--private [OPTION...] | --socket PATH] [--] PROGRAM [ARGUMENT...]; SCRIPT: bin/userdma */
int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    arguments = argv + 1;
    char **args = argv + 3;
    const char *option = NULL;
    bool is_private = false;
    /* An argument has two words at most. */
    passed = calloc(2 * (size_t)argc, sizeof *passed);
    if (!passed)
        leave_to_node();
    for (; *args && **args == '-'; args++) {
        if (strcmp(*args, "--") == 0) {
            args++;
            break;
        }
        if (strncmp(*args, "--socket=", 9) == 0)
            option = *args + 9;
        else if (strcmp(*args, "--socket") == 0 && args[1])
            option = *++args;
        else if (strcmp(*args, "--private") == 0)
            is_private = true;
        else if (!(args = pass_option(args)))
            leave_to_node();
    }
    if (is_private ? option != NULL : passed_count > 0)
        leave_to_node();
    const char *path = *args ? find_program(*args) : NULL;
    if (!path || !loads_libraries(path) || !starts_no_other(path, args + 1) || has_low_limits())
        leave_to_node();
    const char *preload = preload_library();
    const char *socket = is_private ? NULL : socket_path(option);
    set_standard_descriptors();
    reset_signals();
    if (is_private)
        socket = start_private();
    /* A clock that skips: a library more, and a line about it at the end. */
    if (access(joined(socket, USERDMA_CLOCK_SUFFIX, ""), F_OK) == 0)
        leave_to_node();
    int session = connection(socket);
    if (session < 0 && is_unserved() && !is_private && !option && !variable(USERDMA_ENV_SOCKET)) {
        start_own(socket);
        session = connection(socket);
    }
    if (session < 0)
        leave_to_node();
    open_session(session);

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
    const int status = wait_for(child, *args, signals, session, socket);
    close(session);
    if (is_private)
        end_private(socket, signals);
    return end_as(status, &waited);
}
