/*
 * Makes calls on umad files as a test requests, for test/system/management/umad.test.ts.
 *
 * Each input line is one step; each answer is a line "RESULT HEX". RESULT is that of the system call or minus an errno,
 * HEX the output if the step has one. An unknown step ends the program with status 2.
 *
 *   open PATH [wait]       opens another file for the later steps, with O_NONBLOCK unless `wait`; RESULT is its
 *                          descriptor
 *   use FD                 later steps use that descriptor
 *   pkeys                  IB_USER_MAD_ENABLE_PKEY
 *   register HEX           IB_USER_MAD_REGISTER_AGENT with this struct; HEX is the struct afterwards
 *   register2 HEX          IB_USER_MAD_REGISTER_AGENT2
 *   unregister ID          IB_USER_MAD_UNREGISTER_AGENT
 *   ioctl NUMBER           any other ioctl, without an argument
 *   write LENGTH HEX       these bytes, and zeros up to LENGTH
 *   read LENGTH            HEX is what was read
 *   fault LENGTH           read to an address without memory
 *   poll MILLISECONDS      poll(2) for reading, with 0 also for writing; HEX is `revents`
 *   stat                   fstat(2); RESULT is st_rdev
 *   exec                   answers 0, and executes this program again, which inherits the files
 *   fork                   a child answers 0 and runs the following steps; the parent exits with the child's status
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <rdma/ib_user_mad.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The header of a message, and the longest message. */
#define MAX_BYTES (64 + (1 << 20))

static int file = -1;
static char line[2 * MAX_BYTES + 64], hex[2 * MAX_BYTES + 1];
static unsigned char bytes[MAX_BYTES];

static void answer(long result, const void *data, long length)
{
    printf("%ld ", result < 0 ? -(long)errno : result);
    for (long i = 0; i < length; i++)
        printf("%02x", ((const unsigned char *)data)[i]);
    puts("");
    fflush(stdout);
}

static void unhex(const char *text)
{
    static const char digits[] = "0123456789abcdef";
    long length = 0;
    memset(bytes, 0, sizeof bytes);
    for (; length < MAX_BYTES && text[0] && text[1]; text += 2)
        bytes[length++] = (strchr(digits, text[0]) - digits) << 4 | (strchr(digits, text[1]) - digits);
}

/* An ioctl with `bytes` as argument; answers with the first `length` bytes. */
static void run_ioctl(unsigned long request, long length)
{
    long result = ioctl(file, request, bytes);
    answer(result, bytes, length);
}

static int step(void)
{
    char path[256], mode[16] = "";
    long number;
    hex[0] = 0;
    if (sscanf(line, "open %255s %15s", path, mode) >= 1) {
        file = open(path, O_RDWR | (strcmp(mode, "wait") == 0 ? 0 : O_NONBLOCK));
        answer(file, NULL, 0);
    } else if (sscanf(line, "use %ld", &number) == 1) {
        file = (int)number;
        answer(0, NULL, 0);
    } else if (strncmp(line, "pkeys", 5) == 0) {
        answer(ioctl(file, IB_USER_MAD_ENABLE_PKEY), NULL, 0);
    } else if (sscanf(line, "register2 %1024s", hex) == 1) {
        unhex(hex);
        run_ioctl(IB_USER_MAD_REGISTER_AGENT2, sizeof(struct ib_user_mad_reg_req2));
    } else if (sscanf(line, "register %1024s", hex) == 1) {
        unhex(hex);
        run_ioctl(IB_USER_MAD_REGISTER_AGENT, sizeof(struct ib_user_mad_reg_req));
    } else if (sscanf(line, "unregister %ld", &number) == 1) {
        uint32_t id = (uint32_t)number;
        answer(ioctl(file, IB_USER_MAD_UNREGISTER_AGENT, &id), NULL, 0);
    } else if (sscanf(line, "ioctl %ld", &number) == 1) {
        answer(ioctl(file, (unsigned long)number, 0), NULL, 0);
    } else if (sscanf(line, "write %ld %2097280s", &number, hex) >= 1) {
        unhex(hex);
        answer(write(file, bytes, (size_t)number), NULL, 0);
    } else if (sscanf(line, "read %ld", &number) == 1) {
        long result = read(file, bytes, (size_t)number);
        answer(result, bytes, result);
    } else if (sscanf(line, "fault %ld", &number) == 1) {
        answer(read(file, (void *)16, (size_t)number), NULL, 0);
    } else if (sscanf(line, "poll %ld", &number) == 1) {
        struct pollfd poll_fd = {.fd = file, .events = POLLIN | POLLOUT};
        if (number != 0)
            poll_fd.events = POLLIN;
        long result = poll(&poll_fd, 1, (int)number);
        answer(result, &poll_fd.revents, sizeof poll_fd.revents);
    } else if (strncmp(line, "stat", 4) == 0) {
        struct stat st;
        answer(fstat(file, &st) == 0 ? (long)st.st_rdev : -1, NULL, 0);
    } else if (strncmp(line, "exec", 4) == 0) {
        answer(0, NULL, 0);
        execl("/proc/self/exe", "umad", NULL);
        exit(3);
    } else if (strncmp(line, "fork", 4) == 0) {
        pid_t child = fork();
        int status = 0;
        if (child > 0) {
            waitpid(child, &status, 0);
            exit(WEXITSTATUS(status));
        }
        answer(child, NULL, 0);
    } else
        return 2;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 1) {
        fprintf(stderr, "usage: %s, with steps on its input\n", argv[0]);
        return 1;
    }
    int status = 0;
    setvbuf(stdin, NULL, _IONBF, 0); /* unbuffered: a child continues with the next line */
    while (status == 0 && fgets(line, sizeof line, stdin))
        status = step();
    return status;
}
