/*
 * A thread waits for an rdma_cm event on a channel that another thread closes. As on Linux, where the call holds a
 * reference to the channel, the thread waits until a signal arrives, and gets EINTR.
 *
 * userfaultfd tells when the call has started: the body of the message is on a missing page, which the daemon reads.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <rdma/rdma_user_cm.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../endpoint.h"

enum { PAGE = 4096 };

static int channel;
static struct rdma_ucm_cmd_hdr *message;
static atomic_int call_result; /* 0 during the call, then its errno, or -1 for success */

static void *wait_for_event(UNUSED void *unused)
{
    const ssize_t written = write(channel, message, sizeof *message + sizeof(struct rdma_ucm_get_event));
    call_result = written < 0 ? errno : -1;
    return NULL;
}

static void ignore_signal(UNUSED int signal)
{
}

int main(int argc, UNUSED char **argv)
{
    NEED(argc == 1, "usage: closed_channel");
    struct sigaction action = {.sa_handler = ignore_signal};
    sigaction(SIGUSR1, &action, NULL);
    channel = open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC);
    NEED(channel >= 0, "rdma_cm: %s", strerror(errno));
    char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(pages != MAP_FAILED, "mmap: %s", strerror(errno));
    message = (void *)(pages + PAGE - sizeof *message);
    static struct rdma_ucm_event_resp response;
    *message = (struct rdma_ucm_cmd_hdr){
        .cmd = RDMA_USER_CM_CMD_GET_EVENT, .in = sizeof(struct rdma_ucm_get_event), .out = sizeof response};
    static _Alignas(PAGE) char content[PAGE];
    memcpy(content, &(struct rdma_ucm_get_event){.response = (uintptr_t)&response}, sizeof(struct rdma_ucm_get_event));

    const int userfault_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    NEED(userfault_fd >= 0, "cannot: userfaultfd: %s", strerror(errno));
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {(uintptr_t)pages + PAGE, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    NEED(ioctl(userfault_fd, UFFDIO_API, &api) == 0 && ioctl(userfault_fd, UFFDIO_REGISTER, &range) == 0,
         "cannot: userfaultfd: %s", strerror(errno));
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, wait_for_event, NULL) == 0, "pthread_create");
    struct uffd_msg fault;
    NEED(read(userfault_fd, &fault, sizeof fault) == sizeof fault, "userfaultfd: %s", strerror(errno));
    NEED(close(channel) == 0, "close: %s", strerror(errno));
    struct uffdio_copy copy = {.dst = (uintptr_t)pages + PAGE, .src = (uintptr_t)content, .len = PAGE};
    NEED(ioctl(userfault_fd, UFFDIO_COPY, &copy) == 0, "UFFDIO_COPY: %s", strerror(errno));
    /* Cannot hide an early return: the shim blocks signals in its exchange with the daemon before the wait. */
    while (!call_result) {
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    }
    pthread_join(thread, NULL);
    NEED(call_result == EINTR, "the call returned without a signal: %s", call_result < 0 ? "success" : strerror(call_result));
    puts("right");
    return 0;
}
