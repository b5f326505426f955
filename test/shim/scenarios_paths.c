/*
 * Scenarios (scenarios.c) of programs that use RDMA paths.
 */
#include "scenarios.h"

#include <ftw.h>
#include <glob.h>
#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#define IS_NODE(st) ((st).st_mode == (S_IFCHR | 0666) && (st).st_rdev == makedev(231, 192) && (st).st_size == 0)

void paths(void)
{
    char text[PATH_MAX];
    struct stat st;
    DIR *dir = opendir("/sys/class/infiniband_verbs");
    EXPECT(dir);
    bool seen = false;
    for (struct dirent *e; (e = readdir(dir));)
        seen |= strcmp(e->d_name, "uverbs0") == 0;
    EXPECT(seen);
    int fd = openat(dirfd(dir), "uverbs0", O_DIRECTORY | O_RDONLY);
    EXPECT(fd >= 0);
    int file = openat(fd, "ibdev", O_RDONLY);
    EXPECT(file >= 0 && read(file, text, sizeof text) == 5 && memcmp(text, "rxe0\n", 5) == 0);
    close(file);
    close(fd);
    closedir(dir);

    FILE *stream = fopen("//sys/./class//infiniband/rxe0/node_type", "r");
    EXPECT(stream && fgets(text, sizeof text, stream) && strcmp(text, "1: CA\n") == 0);
    EXPECT(fclose(stream) == 0);
    EXPECT(access("/./sys/class/infiniband/rxe0", R_OK) == 0);
    EXPECT(access("/sys/class/infiniband/rxe0", R_OK) == 0 && faccessat(AT_FDCWD, NODE, R_OK | W_OK, 0) == 0);
    EXPECT(euidaccess("/sys/class/infiniband", X_OK) == 0);
    FAILS(access("/sys/class/infiniband/rxe1", F_OK), ENOENT);
    FAILS(open("/dev/infiniband/issm0", O_RDWR), ENOENT);
    FAILS(open("/dev/infiniband/uverbs00", O_RDWR), ENOENT);
    FAILS(open("/dev/infiniband/uverbs0x", O_RDWR), ENOENT);
    EXPECT(stat("/sys/class/infiniband/rxe0", &st) == 0 && S_ISDIR(st.st_mode));
    struct dirent **list;
    EXPECT(scandir("/sys/class/infiniband", &list, NULL, alphasort) == 3); /* ".", ".." and rxe0 */
    EXPECT(realpath("/sys/class/infiniband/../infiniband/rxe0", text));
    EXPECT(strcmp(text, "/sys/class/infiniband/rxe0") == 0);
    char *canonical = canonicalize_file_name("/dev/infiniband");
    EXPECT(canonical && strcmp(canonical, "/dev/infiniband") == 0);
    FAILS(readlink("/sys/class/infiniband/rxe0", text, sizeof text), EINVAL);
    FAILS(readlinkat(AT_FDCWD, "/sys/class/infiniband/rxe0", text, sizeof text), EINVAL);
    EXPECT(listxattr(NODE, NULL, 0) >= 0 && llistxattr(NODE, NULL, 0) >= 0);
    EXPECT(getxattr(NODE, "user.none", NULL, 0) == -1 && errno != ENOENT);
    EXPECT(lgetxattr(NODE, "user.none", NULL, 0) == -1 && errno != ENOENT);
    EXPECT(inotify_add_watch(inotify_init(), "/dev/infiniband", IN_CREATE) >= 0);
    EXPECT(chdir("/sys/class/infiniband/rxe0") == 0 && access("node_guid", R_OK) == 0);

    EXPECT(stat(NODE, &st) == 0 && IS_NODE(st));
    EXPECT(lstat(NODE, &st) == 0 && S_ISCHR(st.st_mode));
    errno = 7;
    EXPECT(stat("/dev/infiniband/userdma", &st) == 0 && errno == 7);
    EXPECT(st.st_mode == (S_IFCHR | 0666) && st.st_rdev == 0);
    EXPECT(fstatat(AT_FDCWD, NODE, &st, 0) == 0 && S_ISCHR(st.st_mode));
    struct statx sx;
    EXPECT(statx(AT_FDCWD, NODE, 0, STATX_ALL, &sx) == 0 && S_ISCHR(sx.stx_mode) && sx.stx_rdev_minor == 192);
    EXPECT(sx.stx_size == 0 && sx.stx_blocks == 0);

    /* Other paths are not changed. */
    EXPECT(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
    EXPECT(realpath("/dev/../dev/null", text) && strcmp(text, "/dev/null") == 0);
    FAILS(open("/dev/infini", O_RDONLY), ENOENT);
    EXPECT((fd = open("/sys/class", O_RDONLY)) >= 0);
    EXPECT(openat(fd, "no such file", O_RDONLY) == -1);
    const char *volatile nowhere = NULL;
    FAILS(open(nowhere, O_RDONLY), EFAULT);
    nowhere = (const char *)-1;
    FAILS(open(nowhere, O_RDONLY), EFAULT);
    FAILS(stat(nowhere, &st), EFAULT);
    FAILS(syscall(SYS_statx, AT_FDCWD, nowhere, 0, STATX_ALL, &sx), EFAULT);
}

/* The number of entries called `name` from the stream's position to its end. */
static int count_entries(DIR *dir, const char *name)
{
    int count = 0;
    errno = 7;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, name) == 0;
    EXPECT(errno == 7 && !readdir(dir));
    return count;
}

static int is_class(const struct dirent *entry)
{
    return strncmp(entry->d_name, "infiniband", 10) == 0;
}

static int is_node_entry(const struct dirent *entry)
{
    return entry->d_type == DT_CHR;
}

void folders_above(void)
{
    FAILS(scandir("/sys/class/no such folder", &(struct dirent **){NULL}, NULL, NULL), ENOENT);
    DIR *dev = opendir("/dev"), *classes = fdopendir(open("/sys/class", O_RDONLY | O_DIRECTORY));
    EXPECT(dev && classes);
    EXPECT(count_entries(dev, "infiniband") == 1 && count_entries(dev, "infiniband") == 0);
    const long end = telldir(dev);
    DIR *volatile none = NULL;
    FAILS(closedir(none), EINVAL);
    rewinddir(dev);
    EXPECT(count_entries(dev, "null") == 1);
    rewinddir(dev);
    EXPECT(count_entries(dev, "infiniband") == 1);
    seekdir(dev, end);
    EXPECT(count_entries(dev, "infiniband") == 1);
    EXPECT(count_entries(classes, "infiniband_verbs") == 1);
    EXPECT(closedir(dev) == 0 && closedir(classes) == 0);

    dev = opendir("/dev/infiniband/..");
    EXPECT(dev && count_entries(dev, "infiniband") == 1 && closedir(dev) == 0);
    dev = opendir("/dev/shm");
    EXPECT(dev && count_entries(dev, "infiniband") == 0 && closedir(dev) == 0);

    /* The shim continues 16 streams at a time. */
    const int lowest = open("/dev/null", O_RDONLY);
    EXPECT(lowest >= 0 && close(lowest) == 0);
    DIR *streams[17];
    for (int i = 0; i < 17; i++) {
        streams[i] = opendir("/dev");
        EXPECT(streams[i] && count_entries(streams[i], "infiniband") == (i < 16));
    }
    for (int i = 0; i < 17; i++)
        EXPECT(closedir(streams[i]) == 0);
    EXPECT(open("/dev/null", O_RDONLY) == lowest); /* no descriptor of the tree is left */

    struct dirent **list;
    EXPECT(scandir("/sys/class", &list, is_class, alphasort) == 2);
    EXPECT(strcmp(list[0]->d_name, "infiniband") == 0 && strcmp(list[1]->d_name, "infiniband_verbs") == 0);
    EXPECT(scandir("/dev/infiniband", &list, is_node_entry, NULL) == 3);
    DIR *nodes = opendir("/dev/infiniband");
    int node_count = 0;
    for (struct dirent *entry; (entry = readdir(nodes));)
        node_count += entry->d_type == DT_CHR;
    EXPECT(node_count == 3 && closedir(nodes) == 0);
    const int count = scandirat(AT_FDCWD, "/dev", &list, NULL, alphasort);
    for (int i = 1; i < count; i++)
        EXPECT(alphasort((const struct dirent **)&list[i - 1], (const struct dirent **)&list[i]) <= 0);
    EXPECT(chdir("/dev") == 0 && scandir(".", &list, is_class, NULL) == 1 && list[0]->d_type == DT_DIR);
}

/* Linux links the number of a node to its folder in sysfs, and udev links it to the node. */
void device_numbers(void)
{
    char text[PATH_MAX];
    struct stat st;
    struct statx sx;
    int fd = open("/sys/dev/char/231:192/ibdev", O_RDONLY);
    EXPECT(fd >= 0 && read(fd, text, sizeof text) == 5 && memcmp(text, "rxe0\n", 5) == 0 && close(fd) == 0);
    fd = open("/sys/dev/char", O_RDONLY | O_DIRECTORY);
    EXPECT(fd >= 0 && faccessat(fd, "231:192/ibdev", R_OK, 0) == 0 && faccessat(fd, "1:3/dev", R_OK, 0) == 0);
    EXPECT(readlinkat(fd, "231:192", text, sizeof text) > 0 && close(fd) == 0);
    DIR *numbers = opendir("/sys/dev/char");
    EXPECT(numbers && count_entries(numbers, "231:192") == 1 && closedir(numbers) == 0);
    FAILS(access("/sys/dev/char/231:193", F_OK), ENOENT);

    fd = open("/dev/char/231:192", O_RDWR);
    EXPECT(fd >= 0 && order(fd, ECHO, 9) == 9 && close(fd) == 0);
    FAILS(open("/dev/char/231:64", O_RDWR), ENOENT);
    EXPECT(realpath("/dev/char/231:192", text) && strcmp(text, NODE) == 0);
    EXPECT(stat("/dev/char/231:192", &st) == 0 && IS_NODE(st));
    EXPECT(lstat("/dev/char/231:192", &st) == 0 && S_ISLNK(st.st_mode));
    EXPECT(statx(AT_FDCWD, "/dev/char/231:192", 0, STATX_ALL, &sx) == 0 && S_ISCHR(sx.stx_mode));
    EXPECT(statx(AT_FDCWD, "/dev/char/231:192", AT_SYMLINK_NOFOLLOW, STATX_ALL, &sx) == 0 && S_ISLNK(sx.stx_mode));
}

#ifdef __x86_64__
#define STAT_VERSION 1
#else
#define STAT_VERSION 0
#endif

/* The functions by which programs that were linked with glibc before 2.33 call stat, lstat, fstat and fstatat. */
void old_stats(void)
{
    static const char *const by_path[] = {"__xstat", "__xstat64", "__lxstat", "__lxstat64"};
    static const char *const by_fd[] = {"__fxstat", "__fxstat64"}, *const at[] = {"__fxstatat", "__fxstatat64"};
    struct stat st;
    const int fd = open_device();
    for (int i = 0; i < 4; i++) {
        int (*const function)(int, const char *, struct stat *) = dlsym(RTLD_DEFAULT, by_path[i]);
        memset(&st, 0, sizeof st);
        EXPECT(function && function(STAT_VERSION, NODE, &st) == 0 && IS_NODE(st));
        FAILS(function(STAT_VERSION, "/sys/class/infiniband/rxe7", &st), ENOENT);
    }
    for (int i = 0; i < 2; i++) {
        int (*const function)(int, int, struct stat *) = dlsym(RTLD_DEFAULT, by_fd[i]);
        memset(&st, 0, sizeof st);
        EXPECT(function && function(STAT_VERSION, fd, &st) == 0 && IS_NODE(st));
    }
    for (int i = 0; i < 2; i++) {
        int (*const function)(int, int, const char *, struct stat *, int) = dlsym(RTLD_DEFAULT, at[i]);
        memset(&st, 0, sizeof st);
        EXPECT(function && function(STAT_VERSION, AT_FDCWD, NODE, &st, 0) == 0 && IS_NODE(st));
        memset(&st, 0, sizeof st);
        EXPECT(function(STAT_VERSION, fd, "", &st, AT_EMPTY_PATH) == 0 && IS_NODE(st));
    }
}

#define ATTRIBUTE "infiniband/rxe0/node_type"

static bool file_has(int fd, const char *expected)
{
    char text[64] = "";
    EXPECT(fd >= 0 && read(fd, text, sizeof text - 1) >= 0 && close(fd) == 0);
    return strcmp(text, expected) == 0;
}

/* A descriptor of the device, and not of the file that the daemon's tree has in its place. */
static void expect_device(int fd)
{
    struct stat st;
    EXPECT(fd >= 0 && fstat(fd, &st) == 0 && IS_NODE(st) && order(fd, ECHO, 9) == 9 && close(fd) == 0);
}

void relative_paths(void)
{
    char text[PATH_MAX];
    struct stat st;
    struct statx sx;
    int dir = open("/dev/infiniband", O_RDONLY | O_DIRECTORY);
    EXPECT(fstatat(dir, "uverbs0", &st, 0) == 0 && IS_NODE(st));
    EXPECT(statx(dir, "uverbs0", 0, STATX_ALL, &sx) == 0 && S_ISCHR(sx.stx_mode));
    expect_device(openat(dir, "uverbs0", O_RDWR | O_CLOEXEC));
    EXPECT(faccessat(dir, "uverbs0", R_OK | W_OK, 0) == 0);
    EXPECT(fchdir(dir) == 0 && stat("./uverbs0", &st) == 0 && IS_NODE(st));
    expect_device(open("uverbs0", O_RDWR));
    expect_device(open("././/uverbs0", O_RDWR));
    EXPECT(getcwd(text, sizeof text) && strcmp(text, "/dev/infiniband") == 0);
    EXPECT(getcwd(text, sizeof "/dev/infiniband") && strcmp(text, "/dev/infiniband") == 0);
    FAILS(getcwd(text, sizeof "/dev/infiniband" - 1) ? 0 : -1, ERANGE);
    EXPECT(realpath("uverbs0", text) && strcmp(text, NODE) == 0);
    close(dir);

    EXPECT((dir = open("/dev", O_RDONLY)) >= 0);
    expect_device(openat(dir, "infiniband/uverbs0", O_RDWR));
    close(dir);
    EXPECT((dir = open("/sys/class", O_RDONLY)) >= 0 && file_has(openat(dir, ATTRIBUTE, O_RDONLY), "1: CA\n"));
    close(dir);
    EXPECT((dir = open("/", O_RDONLY)) >= 0 && file_has(openat(dir, "sys/class/" ATTRIBUTE, O_RDONLY), "1: CA\n"));
    close(dir);
    EXPECT(chdir("/sys/class") == 0 && file_has(open(ATTRIBUTE, O_RDONLY), "1: CA\n") && chdir("infiniband/rxe0") == 0);
    char *folder = get_current_dir_name();
    EXPECT(strcmp(folder, "/sys/class/infiniband/rxe0") == 0 && file_has(open("node_type", O_RDONLY), "1: CA\n"));

    /* Paths with `..`. As in sysfs, uverbs0/.. is the parent of /sys/devices/virtual/infiniband_verbs/uverbs0. */
    EXPECT(file_has(open("/sys/class/net/../" ATTRIBUTE, O_RDONLY), "1: CA\n"));
    EXPECT(file_has(open("/dev/..//sys/class/./" ATTRIBUTE, O_RDONLY), "1: CA\n"));
    EXPECT(file_has(open("//sys/class/net/../" ATTRIBUTE, O_RDONLY), "1: CA\n"));
    expect_device(open("/../dev/infiniband/uverbs0", O_RDWR));
    EXPECT(stat("/sys/class/infiniband/../../../dev/null", &st) == 0 && st.st_rdev == makedev(1, 3));
    EXPECT(stat("/sys/class/infiniband_verbs/uverbs0/../../../virtual/net/lo", &st) == 0 && S_ISDIR(st.st_mode));
    expect_device(open("/sys/../dev/infiniband/uverbs0", O_RDWR));
    expect_device(open("/proc/../dev/infiniband/uverbs0", O_RDWR));
    EXPECT(chdir("/proc") == 0);
    expect_device(open("../dev/infiniband/uverbs0", O_RDWR));
    EXPECT(file_has(open("./..//sys/class/net/../" ATTRIBUTE, O_RDONLY), "1: CA\n"));
    /* The folder above an RDMA path is not the one in the tree. */
    struct stat above;
    EXPECT(stat("/sys/class", &above) == 0 && (dir = open("/sys/class/infiniband", O_RDONLY)) >= 0);
    EXPECT(fstatat(dir, "..", &st, 0) == 0 && st.st_ino == above.st_ino && st.st_dev == above.st_dev);
    EXPECT(fstatat(dir, "./../", &st, 0) == 0 && st.st_ino == above.st_ino && st.st_dev == above.st_dev);
    EXPECT(faccessat(dir, "../net/lo", F_OK, 0) == 0 && fchdir(dir) == 0 && close(dir) == 0 && chdir("..") == 0);
    EXPECT(getcwd(text, sizeof text) && strcmp(text, "/sys/class") == 0);
    EXPECT(chdir("/dev/infiniband") == 0 && access("../null", R_OK) == 0 && access("../../proc/self", R_OK) == 0);
    EXPECT(access("../infiniband/uverbs0", R_OK) == 0);
    expect_device(open("../infiniband/uverbs0", O_RDWR));

    /* Other files with the same names are ordinary files. */
    char scratch[] = "/tmp/shim-XXXXXX";
    EXPECT(mkdtemp(scratch) && chdir(scratch) == 0 && mkdir("infiniband", 0700) == 0 && chdir("infiniband") == 0);
    FILE *file = fopen("uverbs0", "w");
    EXPECT(file && fputs("mine", file) > 0 && fclose(file) == 0 && file_has(open("uverbs0", O_RDONLY), "mine"));
    EXPECT(stat("uverbs0", &st) == 0 && S_ISREG(st.st_mode));
    EXPECT(getcwd(text, sizeof text) && strstr(text, scratch) == text);
    char via_link[PATH_MAX];
    snprintf(via_link, sizeof via_link, "/dev/..%s/infiniband_link/../uverbs0", scratch);
    EXPECT(mkdir("folder", 0700) == 0 && symlink("infiniband/folder", "../infiniband_link") == 0);
    EXPECT(file_has(open(via_link, O_RDONLY), "mine") && unlink("../infiniband_link") == 0 && rmdir("folder") == 0);
    EXPECT(unlink("uverbs0") == 0 && chdir("/") == 0 && rmdir(strcat(strcpy(text, scratch), "/infiniband")) == 0);
    EXPECT(rmdir(scratch) == 0);
}

static int visits, nodes;

static int visit_relative_nftw(const char *path, const struct stat *found, int kind, struct FTW *position)
{
    (void)found, (void)kind;
    EXPECT(strncmp(path, ".//infiniband", 13) == 0);
    EXPECT(position->base == (int)strlen(position->level == 0 ? ".//" : ".//infiniband/"));
    visits++;
    return 0;
}

static int visit_relative_ftw(const char *path, const struct stat *found, int kind)
{
    (void)found, (void)kind;
    EXPECT(strncmp(path, "infiniband", 10) == 0);
    visits++;
    return 0;
}

static char unreadable[64];

static int note_unreadable(const char *path, int error)
{
    EXPECT((error == ENOENT || error == EMFILE) && strlen(path) < sizeof unreadable);
    strcpy(unreadable, path);
    return 1;
}

static int visit_nftw(const char *path, const struct stat *found, int kind, struct FTW *position)
{
    EXPECT(strncmp(path, "/dev/infiniband", 15) == 0 && kind != FTW_NS);
    EXPECT(strcmp(path + position->base, position->level == 0 ? "infiniband" : path + strlen("/dev/infiniband/")) == 0);
    nodes += IS_NODE(*found);
    visits++;
    return 0;
}

static int visit_ftw(const char *path, const struct stat *found, int kind)
{
    (void)found;
    EXPECT(strncmp(path, "/sys/class/infiniband_verbs", 27) == 0 && kind != FTW_NS);
    visits++;
    return 0;
}

void directory_walks(void)
{
    char text[64];
    glob_t found;
    EXPECT(glob("/sys/class/infiniband/*", 0, NULL, &found) == 0 && found.gl_pathc == 1);
    EXPECT(strcmp(found.gl_pathv[0], "/sys/class/infiniband/rxe0") == 0);
    EXPECT(glob("/dev/infiniband/uverbs?", GLOB_APPEND, NULL, &found) == 0 && found.gl_pathc == 2);
    EXPECT(strcmp(found.gl_pathv[1], NODE) == 0);
    globfree(&found);
#ifndef __SANITIZE_THREAD__ /* it does not know GLOB_DOOFFS */
    found.gl_offs = 2;
    EXPECT(glob("/dev/infiniband/uverbs?", GLOB_DOOFFS, NULL, &found) == 0 && found.gl_pathc == 1);
    EXPECT(!found.gl_pathv[0] && !found.gl_pathv[1] && strcmp(found.gl_pathv[2], NODE) == 0);
    globfree(&found);
#endif
    glob64_t found64;
    EXPECT(glob64("/dev/infiniband/uverbs?", 0, NULL, &found64) == 0 && strcmp(found64.gl_pathv[0], NODE) == 0);
    globfree64(&found64);
    EXPECT(glob("/dev/infiniband/x*", GLOB_NOCHECK, NULL, &found) == 0 && found.gl_pathc == 1);
    EXPECT(strcmp(found.gl_pathv[0], "/dev/infiniband/x*") == 0);
    EXPECT(glob("/dev/infiniband/x*", 0, NULL, &found) == GLOB_NOMATCH);
    EXPECT(glob("/sys/class/infiniband/rxe1/*", 0, note_unreadable, &found) == GLOB_ABORTED);
    EXPECT(strcmp(unreadable, "/sys/class/infiniband/rxe1") == 0);
    EXPECT(glob("/dev/nul[l]", 0, NULL, &found) == 0 && strcmp(found.gl_pathv[0], "/dev/null") == 0);
    globfree(&found);
    EXPECT(glob("/dev/infini*/uverbs?", 0, NULL, &found) == 0 && strcmp(found.gl_pathv[0], NODE) == 0);
    EXPECT(!(found.gl_flags & GLOB_ALTDIRFUNC) && found.gl_pathc == 1);
    globfree(&found);
    EXPECT(glob("/dev/../dev/infiniband/uverbs?", 0, NULL, &found) == 0 && found.gl_pathc == 1);
    EXPECT(strcmp(found.gl_pathv[0], "/dev/../dev/infiniband/uverbs0") == 0);
    globfree(&found);
    FAILS(glob("*", 0, NULL, NULL), EINVAL);

    /* In the fake daemon's tree, each folder and what is below it are 4 and 6 entries. */
    EXPECT(nftw("/dev/infiniband", visit_nftw, 8, FTW_PHYS) == 0 && visits == 4 && nodes == 1);
    visits = 0;
    EXPECT(ftw("/sys/class/infiniband_verbs", visit_ftw, 8) == 0 && visits == 6);

    /* Relative paths stay relative. */
    EXPECT(chdir("/dev") == 0 && glob("infiniband/uverbs?", 0, NULL, &found) == 0 && found.gl_pathc == 1);
    EXPECT(strcmp(found.gl_pathv[0], "infiniband/uverbs0") == 0);
    globfree(&found);
    EXPECT(glob("./infiniband/./uverbs?", 0, NULL, &found) == 0 && found.gl_pathc == 1);
    EXPECT(strcmp(found.gl_pathv[0], "./infiniband/./uverbs0") == 0);
    globfree(&found);
    EXPECT(glob("//dev//infiniband/uverbs?", 0, NULL, &found) == 0 && found.gl_pathc == 1);
    EXPECT(strcmp(found.gl_pathv[0], "//dev//infiniband/uverbs0") == 0);
    globfree(&found);
    struct rlimit files;
    EXPECT(getrlimit(RLIMIT_NOFILE, &files) == 0);
    EXPECT(setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 0, .rlim_max = files.rlim_max}) == 0);
    EXPECT(glob("infiniband*", 0, note_unreadable, &found) == GLOB_ABORTED && strcmp(unreadable, ".") == 0);
    EXPECT(setrlimit(RLIMIT_NOFILE, &files) == 0);
    visits = 0;
    EXPECT(nftw(".//infiniband", visit_relative_nftw, 8, FTW_PHYS) == 0 && visits == 4);
    visits = 0;
    EXPECT(ftw("infiniband", visit_relative_ftw, 8) == 0 && visits == 4);
    EXPECT(chdir("/") == 0);

    struct dirent **list;
    EXPECT(scandirat(AT_FDCWD, "/sys/class/infiniband", &list, NULL, alphasort) == 3);
    FILE *stream = fopen("/dev/null", "r");
    EXPECT((stream = freopen("/sys/class/" ATTRIBUTE, "r", stream)) && fgets(text, sizeof text, stream));
    EXPECT(strcmp(text, "1: CA\n") == 0);
    struct statfs system;
    EXPECT(statfs("/sys/class/infiniband", &system) == 0 && system.f_type == SYSFS_MAGIC);
    EXPECT(statfs("/.//sys/class/infiniband", &system) == 0 && system.f_type == SYSFS_MAGIC);
    EXPECT(statfs("//sys/class/infiniband", &system) == 0 && system.f_type == SYSFS_MAGIC);
    EXPECT(statfs("/dev/infiniband", &system) == 0 && system.f_type == TMPFS_MAGIC);
    struct statfs64 system64;
    EXPECT(statfs64("/dev/infiniband", &system64) == 0 && system64.f_type == TMPFS_MAGIC);
    /* udevadm and libudev recognize a device by its file system, which fstatfs shows. */
    const int folder = open("/sys/class/infiniband", O_PATH | O_DIRECTORY);
    EXPECT(folder >= 0 && fstatfs(folder, &system) == 0 && system.f_type == SYSFS_MAGIC);
    EXPECT(fstatfs64(folder, &system64) == 0 && system64.f_type == SYSFS_MAGIC);
    const int devices = open("/dev/infiniband", O_RDONLY | O_DIRECTORY);
    EXPECT(devices >= 0 && fstatfs(devices, &system) == 0 && system.f_type == TMPFS_MAGIC);
    const int proc = open("/proc", O_RDONLY | O_DIRECTORY);
    EXPECT(proc >= 0 && fstatfs(proc, &system) == 0 && system.f_type == PROC_SUPER_MAGIC);
    EXPECT(close(folder) == 0 && close(devices) == 0 && close(proc) == 0);
    FAILS(fstatfs(folder, &system), EBADF);
    struct statvfs volume;
    struct statvfs64 volume64;
    EXPECT(statvfs("/sys/class/infiniband", &volume) == 0 && statvfs64("/sys/class/infiniband", &volume64) == 0);
}

/* The files belong to the program's user, who may write only what root may write in sysfs. */
void attribute_writes(void)
{
    FAILS(open("/sys/class/" ATTRIBUTE, O_WRONLY), EACCES);
    FAILS(open("/sys/class/" ATTRIBUTE, O_RDONLY | O_TRUNC), EACCES);
    FAILS(creat("/sys/class/infiniband/rxe0/new", 0600), EACCES);
    FAILS(creat("/sys/class/infiniband/node_desc", 0600), EACCES);
    FAILS(open("/sys/class/infiniband/rxe0/new", O_WRONLY), ENOENT);
    FAILS(open("/sys/class/infiniband/rxe0", O_RDWR | O_TMPFILE, 0600), EACCES);
    FAILS(open("/sys/class/" ATTRIBUTE, O_RDWR | O_TMPFILE, 0600), ENOTDIR);
    FAILS(open("/sys/class/" ATTRIBUTE, O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
    FAILS(open(NODE, O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    FAILS(open(NODE, O_RDWR | O_DIRECTORY), ENOTDIR);
    FAILS(open("/dev/infiniband/uverbs7", O_RDWR | O_DIRECTORY), ENOENT);
    FAILS(open("/sys/class/infiniband/rxe0", O_WRONLY), EISDIR);
    EXPECT(!fopen("/sys/class/" ATTRIBUTE, "r+") && errno == EACCES);
    EXPECT(!fopen("/sys/class/infiniband/new", "w") && errno == EACCES);
    EXPECT(!freopen("/sys/class/" ATTRIBUTE, "a", fopen("/dev/null", "r")) && errno == EACCES);
    EXPECT(!freopen(NODE, "r+", fopen("/dev/null", "r")) && errno == EOPNOTSUPP);
    EXPECT(!fopen("/sys/class/infiniband/rxe0/node_type", "wx") && errno == EEXIST);
    FILE *attribute = fopen("/sys/class/" ATTRIBUTE, "re");
    EXPECT(attribute && (fcntl(fileno(attribute), F_GETFD) & FD_CLOEXEC) && fclose(attribute) == 0);
    EXPECT(file_has(open("/sys/class/" ATTRIBUTE, O_RDONLY), "1: CA\n"));
    int fd = open("/sys/class/infiniband/rxe0/node_desc", O_WRONLY | O_TRUNC);
    EXPECT(fd >= 0 && write(fd, "mine\n", 5) == 5 && close(fd) == 0);
    EXPECT(file_has(open("/sys/class/infiniband/rxe0/node_desc", O_RDONLY), "mine\n"));
    EXPECT(access(NODE, R_OK | W_OK) == 0 && eaccess(NODE, R_OK | W_OK) == 0 && euidaccess(NODE, R_OK | W_OK) == 0);
    FAILS(access(NODE, X_OK), EACCES);
    FAILS(access(NODE, 8), EINVAL);
    /* Scripts prepare device nodes for other users. */
    const int folder = open("/dev/infiniband", O_RDONLY | O_DIRECTORY);
    EXPECT(chmod(NODE, 0666) == 0 && fchmodat(folder, "uverbs0", 0666, 0) == 0 && access(NODE, R_OK | W_OK) == 0);
    EXPECT(chown(NODE, -1, getegid()) == 0 && lchown(NODE, -1, getegid()) == 0);
    EXPECT(fchownat(folder, "uverbs0", -1, getegid(), 0) == 0);
    FAILS(chmod("/dev/infiniband/uverbs7", 0666), ENOENT);
    FAILS(mkdir("/dev/infiniband", 0777), EEXIST);
    FAILS(mkdirat(folder, "uverbs0", 0777), EEXIST);
    FAILS(mkdir("/dev/infiniband/new", 0777), EACCES);
    EXPECT(close(folder) == 0);
    FILE *device = fopen(NODE, "r+");
    EXPECT(device && order(fileno(device), ECHO, 3) == 3 && order(fileno(device), CONTEXTS, 0) == 1);
    /* freopen keeps the number: it is the new file's. */
    EXPECT((device = freopen("/dev/zero", "r", device)) && getc(device) == 0 && hidden_count() == 1);
    EXPECT(read(fileno(device), &(char){1}, 1) == 1 && fclose(device) == 0);
#ifndef __SANITIZE_THREAD__ /* its fclose changes errno */
    errno = 7;
    EXPECT(fclose(fmemopen(NULL, 8, "w")) == 0 && errno == 7);
#endif
}
