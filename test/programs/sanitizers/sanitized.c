/*
 * Mistakes with the memory of requests, and what resembles them and is right, for programs that are built with a
 * sanitizer. Each case is a function, so that its name stands in a report.
 *
 *   sanitized CASE…
 *
 * Each case has two queue pairs of the first device, of RC or (-DSRD) of SRD. Exit status 0 unless a sanitizer says
 * otherwise.
 */
#include "../../../docs/findings/pair.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/time.h>

#define LENGTH 64
#define CASE(name) static __attribute__((noinline)) void name(void)

static struct end here, there;
/* What no device reaches. */
static int plain;

static struct ibv_sge part(const struct end *end, size_t offset)
{
    return (struct ibv_sge){.addr = address_of(end) + offset, .length = LENGTH, .lkey = end->mr->lkey};
}

/* Waits for one completion. */
static void take_from(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(cq, 1, &wc)) == 0)
        ;
    if (found < 0 || wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "completion: %s\n", found < 0 ? "none" : ibv_wc_status_str(wc.status));
        exit(1);
    }
}

static void take(struct end *end)
{
    take_from(end->cq);
}

#define SEND(sge) post(&here, IBV_WR_SEND, sge, 0, 0)

/* Registers a block of its own. */
static struct ibv_sge block_of(struct end *end, size_t allocated, char **block)
{
    *block = malloc(allocated);
    memset(*block, 1, allocated);
    end->extra = need(ibv_reg_mr(end->pd, *block, LENGTH, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    return (struct ibv_sge){.addr = (uintptr_t)*block, .length = LENGTH, .lkey = end->extra->lkey};
}

/* ---- mistakes ---- */

CASE(changed_before_completion)
{
    post_receive(&there, part(&there, 0));
    SEND(part(&here, 0));
    here.buffer[1] = 2;
    take(&here);
}

CASE(freed_before_completion)
{
    char *block;
    post_receive(&there, part(&there, 0));
    SEND(block_of(&here, LENGTH, &block));
    free(block);
    take(&here);
}

CASE(posted_after_free)
{
    char *block;
    const struct ibv_sge sge = block_of(&here, LENGTH, &block);
    free(block);
    post_receive(&there, part(&there, 0));
    SEND(sge);
    take(&here);
}

static __attribute__((noinline)) struct ibv_sge in_a_frame(void)
{
    char block[LENGTH];
    memset(block, 1, sizeof block);
    here.extra = need(ibv_reg_mr(here.pd, block, LENGTH, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    return (struct ibv_sge){.addr = (uintptr_t)block, .length = LENGTH, .lkey = here.extra->lkey};
}

CASE(posted_after_return)
{
    const struct ibv_sge sge = in_a_frame();
    post_receive(&there, part(&there, 0));
    SEND(sge);
    take(&here);
}

CASE(received_past_object)
{
    char *block;
    post_receive(&there, block_of(&there, LENGTH / 2, &block));
    SEND(part(&here, 0));
    take(&there);
    take(&here);
}

CASE(read_before_completion)
{
    post_receive(&there, part(&there, 0));
    SEND(part(&here, 0));
    plain = there.buffer[1];
    take(&there);
    take(&here);
}

CASE(stored_before_read)
{
    post(&here, IBV_WR_RDMA_READ, part(&here, 0), address_of(&there), there.mr->rkey);
    here.buffer[1] = 2;
    take(&here);
}

#ifndef SRD
static void send_unsignaled(struct ibv_sge sge, unsigned flags)
{
    struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = flags};
    check(ibv_post_send(here.qp, &wr, &bad), "ibv_post_send");
}

/* Only requests that ask for it complete. */
static void use_signals(void)
{
    struct ibv_qp_init_attr init = small_qp();
    check(ibv_destroy_qp(here.qp), "ibv_destroy_qp");
    check(ibv_destroy_qp(there.qp), "ibv_destroy_qp");
    init.sq_sig_all = 0;
    init.cap.max_inline_data = LENGTH;
    init.send_cq = init.recv_cq = here.cq;
    create_queue_pair(&here, init);
    init.send_cq = init.recv_cq = there.cq;
    create_queue_pair(&there, init);
    to_init(&here);
    to_init(&there);
    here.attr.dest_qp_num = there.attr.dest_qp_num = 0;
    connect_ends(&here, &there);
}

CASE(unsignaled_changed)
{
    use_signals();
    post_receive(&there, part(&there, 0));
    send_unsignaled(part(&here, 0), 0);
    take(&there);
    there.buffer[1] = 3;
    post_receive(&there, part(&there, 0));
    send_unsignaled(part(&here, LENGTH), 0);
    here.buffer[LENGTH + 1] = 2;
    take(&there);
}

/* ---- right ---- */

CASE(inline_changed)
{
    use_signals();
    post_receive(&there, part(&there, 0));
    send_unsignaled(part(&here, 0), IBV_SEND_INLINE | IBV_SEND_SIGNALED);
    here.buffer[1] = 2;
    take(&here);
}

CASE(unsignaled_in_time)
{
    use_signals();
    for (int i = 0; i < 40; i++) {
        const bool is_signaled = i % 4 == 3;
        post_receive(&there, part(&there, 0));
        send_unsignaled(part(&here, (size_t)(i % 4) * LENGTH), is_signaled ? IBV_SEND_SIGNALED : 0);
        take(&there);
        there.buffer[i % LENGTH] = 1;
        if (!is_signaled)
            continue;
        take(&here);
        memset(here.buffer, i, 4 * LENGTH);
    }
}

CASE(reset)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    post_receive(&there, part(&there, 0));
    check(ibv_modify_qp(there.qp, &attr, IBV_QP_STATE), "ibv_modify_qp");
    there.buffer[1] = 2;
}

CASE(flushed)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    struct ibv_wc wc;
    post_receive(&there, part(&there, 0));
    check(ibv_modify_qp(there.qp, &attr, IBV_QP_STATE), "ibv_modify_qp");
    while (ibv_poll_cq(there.cq, 1, &wc) == 0)
        ;
    there.buffer[1] = 2;
}

CASE(shared_receives)
{
    struct ibv_srq_init_attr srq = {.attr = {.max_wr = 8, .max_sge = 1}};
    struct ibv_srq *shared = need(ibv_create_srq(there.pd, &srq), "ibv_create_srq");
    struct ibv_qp_init_attr init = small_qp();
    check(ibv_destroy_qp(there.qp), "ibv_destroy_qp");
    init.send_cq = init.recv_cq = there.cq;
    init.srq = shared;
    there.qp = need(ibv_create_qp(there.pd, &init), "ibv_create_qp");
    to_init(&there);
    here.attr.dest_qp_num = there.attr.dest_qp_num = 0;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    check(ibv_modify_qp(here.qp, &attr, IBV_QP_STATE), "ibv_modify_qp");
    to_init(&here);
    connect_ends(&here, &there);
    for (int i = 0; i < 8; i++) {
        struct ibv_sge sge = part(&there, (size_t)(i % 2) * LENGTH);
        struct ibv_recv_wr *bad, wr = {.wr_id = (uint64_t)i, .sg_list = &sge, .num_sge = 1};
        check(ibv_post_srq_recv(shared, &wr, &bad), "ibv_post_srq_recv");
        SEND(part(&here, 0));
        take(&there);
        take(&here);
        there.buffer[(i % 2) * LENGTH] = 1;
        here.buffer[0] = (char)i;
    }
    check(ibv_destroy_qp(there.qp), "ibv_destroy_qp");
    there.qp = NULL;
    check(ibv_destroy_srq(shared), "ibv_destroy_srq");
}

/* Two SRQs of XRC, whose receives have the same wr_ids. */
CASE(receives_of_two)
{
    struct ibv_xrcd_init_attr domain = {
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
    struct ibv_xrcd *xrcd = need(ibv_open_xrcd(context, &domain), "ibv_open_xrcd");
    struct ibv_srq *shared[2];
    for (int i = 0; i < 2; i++) {
        struct ibv_srq_init_attr_ex init = {
            .attr = {.max_wr = 8, .max_sge = 1}, .srq_type = IBV_SRQT_XRC, .xrcd = xrcd, .cq = there.cq, .pd = there.pd};
        init.comp_mask =
            IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_PD;
        shared[i] = need(ibv_create_srq_ex(context, &init), "ibv_create_srq_ex");
    }
    struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_XRC_SEND, .send_cq = here.cq, .pd = here.pd,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD, .cap = small_qp().cap, .sq_sig_all = 1};
    struct ibv_qp_init_attr_ex target = {
        .qp_type = IBV_QPT_XRC_RECV, .xrcd = xrcd, .comp_mask = IBV_QP_INIT_ATTR_XRCD};
    here.qp = need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
    there.qp = need(ibv_create_qp_ex(context, &target), "ibv_create_qp_ex");
    to_init(&here);
    to_init(&there);
    here.attr.dest_qp_num = there.attr.dest_qp_num = 0;
    to_rtr(&here, &there);
    to_rtr(&there, &here);
    to_rts(&here);
    for (int i = 0; i < 6; i++) {
        /* To the first one and the second one, by turns. */
        for (int of = 0; of < 2 && i % 2 == 0; of++) {
            struct ibv_sge sge = part(&there, (size_t)of * LENGTH);
            struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
            check(ibv_post_srq_recv(shared[of], &wr, &bad), "ibv_post_srq_recv");
        }
        struct ibv_sge sge = part(&here, 0);
        struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
        check(ibv_get_srq_num(shared[i % 2], &wr.qp_type.xrc.remote_srqn), "ibv_get_srq_num");
        check(ibv_post_send(here.qp, &wr, &bad), "ibv_post_send");
        take(&here);
        take(&there);
        there.buffer[i % 2 * LENGTH] = 1;
    }
}

/* Messages go out and come in by one buffer. */
CASE(one_buffer)
{
    for (int i = 0; i < 4; i++) {
        post_receive(&here, part(&here, 0));
        post_receive(&there, part(&there, 0));
        here.buffer[1] = (char)i;
        SEND(part(&here, 0));
        take(&there);
        post(&there, IBV_WR_SEND, part(&there, 0), 0, 0);
        take(&there);
        take(&here);
        take(&here);
    }
}
#endif

/* The device has forgotten the requests of a closed context. */
CASE(closed)
{
    char *block;
    post_receive(&there, part(&there, 0));
    SEND(block_of(&here, LENGTH, &block));
    take(&there);
    check(ibv_close_device(context), "ibv_close_device");
    free(block);
}

static volatile sig_atomic_t has_come;

static void come(int signal)
{
    (void)signal;
    has_come = 1;
}

/* A handler runs soon, whatever the signal has interrupted. */
CASE(signaled)
{
    check(sigaction(SIGALRM, &(struct sigaction){.sa_handler = come}, NULL), "sigaction");
    for (int i = 0; i < 1000; i++) {
        const struct itimerval timer = {.it_value = {.tv_usec = 20 + i % 100 * 3}};
        has_come = 0;
        check(setitimer(ITIMER_REAL, &timer, NULL), "setitimer");
        for (int sent = 0; !has_come; sent++) {
            if (sent == 10000) {
                fprintf(stderr, "no handler has run\n");
                exit(1);
            }
            post_receive(&there, part(&there, 0));
            SEND(part(&here, 0));
            take(&there);
            take(&here);
        }
    }
}

CASE(in_time)
{
    for (int i = 0; i < 20; i++) {
        post_receive(&there, part(&there, 0));
        SEND(part(&here, 0));
        take(&there);
        plain += there.buffer[1];
        there.buffer[2] = 2;
        take(&here);
        memset(here.buffer, i, LENGTH);
    }
    post(&here, IBV_WR_RDMA_READ, part(&here, 0), address_of(&there), there.mr->rkey);
    take(&here);
    here.buffer[1] = 2;
}

static void *poll_and_use(void *nothing)
{
    take(&here);
    here.buffer[1] = 2;
    return nothing;
}

CASE(handed_over)
{
    pthread_t thread;
    post_receive(&there, part(&there, 0));
    here.buffer[1] = 1;
    SEND(part(&here, 0));
    check(pthread_create(&thread, NULL, poll_and_use, NULL), "pthread_create");
    pthread_join(thread, NULL);
    here.buffer[1] = 3;
    take(&there);
}

static void *receive_and_look(void *nothing)
{
    take(&there);
    there.buffer[1] = (char)plain++;
    return nothing;
}

/* The thread runs before the post: only the message orders what it reads. */
CASE(told_by_message)
{
    pthread_t thread;
    post_receive(&there, part(&there, 0));
    check(pthread_create(&thread, NULL, receive_and_look, NULL), "pthread_create");
    plain = 7;
    here.buffer[1] = 1;
    SEND(part(&here, 0));
    pthread_join(thread, NULL);
    take(&here);
}

CASE(destroyed)
{
    char *block;
    post_receive(&there, block_of(&there, LENGTH, &block));
    check(ibv_destroy_qp(there.qp), "ibv_destroy_qp");
    there.qp = NULL;
    block[1] = 2;
    check(ibv_dereg_mr(there.extra), "ibv_dereg_mr");
    there.extra = NULL;
    free(block);
}

CASE(deregistered)
{
    char *block;
    post_receive(&there, block_of(&there, LENGTH, &block));
    check(ibv_dereg_mr(there.extra), "ibv_dereg_mr");
    there.extra = NULL;
    block[1] = 2;
    free(block);
}

CASE(freed_after_answer)
{
    char *block;
    post_receive(&there, part(&there, 0));
    post_receive(&here, part(&here, LENGTH));
    SEND(block_of(&here, LENGTH, &block));
    take(&there);
    post(&there, IBV_WR_SEND, part(&there, 0), 0, 0);
    take(&there);
    struct ibv_wc wc[2];
    for (int found = 0; found < 2;)
        found += ibv_poll_cq(here.cq, 2 - found, wc + found);
    free(block);
}

static void *nothing(void *argument)
{
    return argument;
}

/* A child that starts a thread, and a parent that goes on. */
CASE(forked)
{
    in_time();
    const pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        const bool has_started = pthread_create(&thread, NULL, nothing, NULL) == 0;
        if (has_started)
            pthread_join(thread, NULL);
        _exit(has_started ? 0 : 3);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) {
        fprintf(stderr, "the child has ended with 0x%x\n", status);
        exit(1);
    }
    in_time();
}

/* ibv_wr_* and an extended CQ. */
static void use_extended(void)
{
    struct ibv_cq_init_attr_ex attributes = {.cqe = 16, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN};
    struct ibv_cq *own = here.cq;
    struct ibv_cq *cq = ibv_cq_ex_to_cq(need(ibv_create_cq_ex(context, &attributes), "ibv_create_cq_ex"));
    check(ibv_destroy_qp(here.qp), "ibv_destroy_qp");
    here.cq = cq;
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = cq;
    create_queue_pair(&here, init);
    to_init(&here);
    recreate_extended(&here, IBV_QP_EX_WITH_SEND);
    check(ibv_destroy_cq(own), "ibv_destroy_cq");
    check(ibv_destroy_qp(there.qp), "ibv_destroy_qp");
    init.send_cq = init.recv_cq = there.cq;
    create_queue_pair(&there, init);
    to_init(&there);
    here.attr.dest_qp_num = there.attr.dest_qp_num = 0;
    connect_ends(&here, &there);
}

static void send_extended(struct ibv_sge sge)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(here.qp);
    ibv_wr_start(qp);
    qp->wr_id = 5;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(qp);
#ifdef SRD
    ibv_wr_set_ud_addr(qp, here.ah, here.attr.dest_qp_num, SRD_QKEY);
#endif
    ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length);
    check(ibv_wr_complete(qp), "ibv_wr_complete");
}

static void take_extended(struct end *end)
{
    struct ibv_cq_ex *cq = (struct ibv_cq_ex *)end->cq;
    struct ibv_poll_cq_attr none = {0};
    while (ibv_start_poll(cq, &none) == ENOENT)
        ;
    check(cq->status, "completion");
    ibv_end_poll(cq);
}

CASE(extended_changed)
{
    use_extended();
    post_receive(&there, part(&there, 0));
    send_extended(part(&here, 0));
    here.buffer[1] = 2;
    take_extended(&here);
}

CASE(extended_in_time)
{
    use_extended();
    for (int i = 0; i < 10; i++) {
        post_receive(&there, part(&there, 0));
        send_extended(part(&here, 0));
        take_extended(&here);
        here.buffer[1] = 2;
        take(&there);
        there.buffer[1] = 2;
    }
}

#define ROW(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    ROW(changed_before_completion), ROW(freed_before_completion), ROW(posted_after_free), ROW(posted_after_return),
    ROW(received_past_object), ROW(read_before_completion), ROW(stored_before_read), ROW(in_time), ROW(handed_over),
    ROW(told_by_message), ROW(destroyed), ROW(deregistered), ROW(freed_after_answer), ROW(forked),
    ROW(extended_changed), ROW(extended_in_time), ROW(closed), ROW(signaled),
#ifndef SRD
    ROW(unsignaled_changed), ROW(inline_changed), ROW(unsignaled_in_time), ROW(reset), ROW(flushed),
    ROW(shared_receives), ROW(receives_of_two), ROW(one_buffer),
#endif
};

int main(int count, char **arguments)
{
    for (int argument = 1; argument < count; argument++) {
        size_t i = 0;
        while (i < sizeof cases / sizeof cases[0] && strcmp(cases[i].name, arguments[argument]) != 0)
            i++;
        if (i == sizeof cases / sizeof cases[0]) {
            fprintf(stderr, "usage: %s CASE…\n", arguments[0]);
            return 1;
        }
        here = there = (struct end){0};
        make_pair(&here, &there);
        memset(here.buffer, 1, SIZE);
        cases[i].run();
    }
    return 0;
}
