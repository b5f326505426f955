/*
 * Faults of `--allow-host-faults`: before a call or post, and after a poll, the observer is asked what happens. The
 * observation file says which questions there are: while no rule may act there is none, and no call of the system. A
 * question is a connection of its own, so threads, forks and programs that close all descriptors need no care. Without
 * an answer there is no fault; an observer that does not answer in time is not asked again.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const uint32_t no_questions;
/* For each wait of a question, and for its waits that signals interrupt together, in seconds. */
#define TIME_LIMIT 10
const uint32_t *host_asks = &no_questions;
TLS bool is_injecting;

static struct sockaddr_un observer = {.sun_family = AF_UNIX};

void faults_begin(const uint32_t *asks)
{
    const char *path = getenv(USERDMA_ENV_OBSERVE_FAULTS);
    if (!path || !path[0] || strlen(path) >= sizeof observer.sun_path)
        return;
    strcpy(observer.sun_path, path);
    host_asks = asks;
}

static time_t seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Whether a wait that has failed is to be repeated. After the time limit there are no more questions. */
static bool is_interrupted(time_t began)
{
    const bool has_time = seconds() - began < TIME_LIMIT;
    if (errno == EAGAIN || (errno == EINTR && !has_time))
        __atomic_store_n(&host_asks, &no_questions, __ATOMIC_RELAXED);
    return errno == EINTR && has_time;
}

/* Calls of the system by number: they are no cancellation points, and no other library sees them. */
static bool receive(int fd, void *to, size_t length)
{
    const time_t began = seconds();
    for (size_t got = 0; got < length;) {
        const long bytes = syscall(SYS_recvfrom, fd, (char *)to + got, length - got, 0, NULL, NULL);
        if (bytes == 0 || (bytes < 0 && !is_interrupted(began)))
            return false;
        got += bytes > 0 ? (size_t)bytes : 0;
    }
    return true;
}

/* Sends a question with `more` behind it. Returns the connection; −1: there is no observer. */
static int ask(struct userdma_question question, const void *more, size_t bytes)
{
    question.pid = (uint32_t)getpid();
    question.tid = (uint32_t)syscall(SYS_gettid);
    const int fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    const struct timeval time_limit = {.tv_sec = TIME_LIMIT};
    const time_t began = seconds();
    syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &time_limit, sizeof time_limit);
    syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &time_limit, sizeof time_limit);
    long done;
    do
        done = syscall(SYS_connect, fd, &observer, sizeof observer);
    while (done < 0 && is_interrupted(began));
    struct iovec parts[] = {{&question, sizeof question}, {(void *)(uintptr_t)more, bytes}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    /* The empty buffer of a new connection has space for all of it. */
    if (done == 0)
        do
            done = syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL);
        while (done < 0 && is_interrupted(began));
    if (done == (long)(sizeof question + bytes))
        return fd;
    syscall(SYS_close, fd);
    return -1;
}

static struct userdma_answer answer_to(struct userdma_question question)
{
    const int saved = errno;
    struct userdma_answer answer = {0};
    const int fd = ask(question, NULL, 0);
    if (fd >= 0) {
        if (!receive(fd, &answer, sizeof answer))
            answer = (struct userdma_answer){0};
        syscall(SYS_close, fd);
    }
    errno = saved;
    return answer;
}

/* ---- calls and posts ---- */

int fault_of_call(int fd)
{
    const int saved = errno;
    const struct userdma_answer answer = answer_to((struct userdma_question){.kind = USERDMA_ASK_CALL, .fd = fd});
    struct timespec left = {(time_t)(answer.delay / 1000000000u), (long)(answer.delay % 1000000000u)};
    if (answer.delay != 0)
        while (syscall(SYS_nanosleep, &left, &left) < 0 && errno == EINTR)
            ;
    errno = saved;
    return answer.error;
}

int fault_of_posts(int fd, uint32_t queue, uint32_t number, uint32_t count, uint32_t *index)
{
    const struct userdma_answer answer = answer_to((struct userdma_question){
        .kind = USERDMA_ASK_POST, .fd = fd, .queue = queue, .number = number, .count = count});
    *index = answer.index < count ? answer.index : 0;
    return answer.error;
}

/* ---- queue pairs ---- */

/*
 * Queue pairs of the program, so that a failed completion can move its own to ERR. They are noted when the program gets
 * them, or posts to them, and forgotten before their provider frees them: under the lock they exist.
 */
#define BUCKETS 1024
static struct known {
    struct known *next;
    struct ibv_qp *qp;
    const struct ibv_context *context;
    uint32_t qpn;
} *known[BUCKETS];
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;

static struct known **bucket_of(uint32_t qpn)
{
    return &known[(qpn * 0x9e3779b1u) >> 22];
}

static struct known *known_with(const struct ibv_context *context, uint32_t qpn)
{
    struct known *one = *bucket_of(qpn);
    while (one && (one->qpn != qpn || one->context != context))
        one = one->next;
    return one;
}

void faults_note(struct ibv_qp *qp)
{
    const int saved = errno;
    pthread_mutex_lock(&known_lock);
    struct known *one = known_with(qp->context, qp->qp_num);
    if (one)
        one->qp = qp;
    else if ((one = malloc(sizeof *one))) {
        *one = (struct known){*bucket_of(qp->qp_num), qp, qp->context, qp->qp_num};
        *bucket_of(qp->qp_num) = one;
    }
    pthread_mutex_unlock(&known_lock);
    errno = saved;
}

static void forget(const struct ibv_qp *qp)
{
    pthread_mutex_lock(&known_lock);
    for (struct known **at = bucket_of(qp->qp_num); *at; at = &(*at)->next)
        if ((*at)->qp == qp) {
            struct known *one = *at;
            *at = one->next;
            free(one);
            break;
        }
    pthread_mutex_unlock(&known_lock);
}

void faults_in_child(void)
{
    pthread_mutex_init(&known_lock, NULL);
    is_injecting = false;
}

void fail_queue_pair(struct ibv_context *context, uint32_t qpn)
{
    const int saved = errno;
    pthread_mutex_lock(&known_lock);
    struct known *one = known_with(context, qpn);
    __typeof__(&ibv_modify_qp) modify = verbs_original("ibv_modify_qp");
    if (one && modify) {
        struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
        is_injecting = true;
        modify(one->qp, &attributes, IBV_QP_STATE);
        is_injecting = false;
    }
    pthread_mutex_unlock(&known_lock);
    errno = saved;
}

void provider_created_qp(struct ibv_qp *qp, uint32_t slots)
{
    (void)slots;
    if (recorder_is_on)
        faults_note(qp);
}

/* Providers call it before they free a queue pair. If the kernel refuses, the next post notes the queue pair again. */
EXPORT int ibv_cmd_destroy_qp(struct ibv_qp *qp);
int ibv_cmd_destroy_qp(struct ibv_qp *qp)
{
    int (*original)(struct ibv_qp *) = verbs_original("ibv_cmd_destroy_qp");
    if (!original)
        return ENOSYS;
    forget(qp);
    const int error = original(qp);
    if (error != 0 && recorder_is_on)
        faults_note(qp);
    return error;
}

/* ---- completions ---- */

uint32_t ask_completions(const struct ibv_cq *cq, struct userdma_polled_completion *list, uint32_t count,
                         struct userdma_completion_verdict *verdicts)
{
    const int saved = errno;
    uint32_t wanted = 0;
    pthread_mutex_lock(&known_lock);
    for (uint32_t i = 0; i < count; i++) {
        list[i].can_fail = list[i].status == IBV_WC_SUCCESS && known_with(cq->context, list[i].qpn) != NULL;
        wanted += list[i].can_fail;
    }
    pthread_mutex_unlock(&known_lock);
    const int fd = wanted == 0 ? -1
                               : ask((struct userdma_question){.kind = USERDMA_ASK_COMPLETIONS,
                                                               .fd = cq->context->cmd_fd,
                                                               .count = count},
                                     list, count * sizeof *list);
    const bool has_answer = fd >= 0 && receive(fd, verdicts, count * sizeof *verdicts);
    if (fd >= 0)
        syscall(SYS_close, fd);
    errno = saved;
    return has_answer ? count : 0;
}

void faults_of_poll(const struct ibv_cq *cq, struct ibv_wc *wc, uint32_t count)
{
    struct userdma_polled_completion list[USERDMA_OBSERVE_MAX_REQUESTS];
    struct userdma_completion_verdict verdicts[USERDMA_OBSERVE_MAX_REQUESTS];
    for (uint32_t i = 0; i < count; i++)
        list[i] = (struct userdma_polled_completion){wc[i].wr_id, wc[i].opcode, wc[i].qp_num, wc[i].status, 0};
    count = ask_completions(cq, list, count, verdicts);
    for (uint32_t i = 0; i < count; i++) {
        if (verdicts[i].status == 0)
            continue;
        wc[i].status = verdicts[i].status;
        wc[i].vendor_err = verdicts[i].vendor_err;
        if (verdicts[i].fails)
            fail_queue_pair(cq->context, wc[i].qp_num);
    }
}
