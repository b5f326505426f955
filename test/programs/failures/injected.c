/*
 * Prints what a program sees of injected faults of calls, posts, completions and events, one line each.
 *
 *   injected CASE
 */
#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "../endpoint.h"

#define REQUESTS 4

static struct endpoint ends[2];

static const char *outcome(int error)
{
    switch (error) {
    case 0: return "ok";
    case ENOMEM: return "ENOMEM";
    case EPERM: return "EPERM";
    case EIO: return "EIO";
    default: return strerror(error);
    }
}

static struct ibv_send_wr write_request(uint64_t id, struct ibv_sge *sge)
{
    *sge = (struct ibv_sge){(uintptr_t)ends[0].buffer, 8, ends[0].mr->lkey};
    return (struct ibv_send_wr){
        .wr_id = id,
        .sg_list = sge,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .send_flags = IBV_SEND_SIGNALED,
        .wr.rdma = {.remote_addr = (uintptr_t)ends[1].buffer, .rkey = ends[1].mr->rkey},
    };
}

/* Prints the next `count` completions of an end, and then its queue pair's state. */
static void print_completions(int side, int count)
{
    struct ibv_wc wc;
    while (count-- > 0) {
        while (ibv_poll_cq(ends[side].cq, 1, &wc) == 0)
            ;
        printf("wr_id %u: %s, vendor_err 0x%x\n", (unsigned)wc.wr_id, ibv_wc_status_str(wc.status), wc.vendor_err);
    }
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    NEED(ibv_query_qp(ends[side].qp, &attr, IBV_QP_STATE, &init) == 0, "ibv_query_qp: %s", strerror(errno));
    printf("state %d\n", attr.qp_state);
}

static void regions(void)
{
    for (int i = 0; i < REQUESTS; i++) {
        errno = 0;
        struct ibv_mr *mr = ibv_reg_mr(ends[0].pd, ends[0].buffer, 64, IBV_ACCESS_LOCAL_WRITE);
        printf("ibv_reg_mr: %s\n", outcome(mr ? 0 : errno));
        if (mr)
            ibv_dereg_mr(mr);
    }
}

static void ignore(int number)
{
    (void)number;
}

/* A call while the parent, which is asked about faults, is stopped, and a timer interrupts each wait. */
static void stopped(void)
{
    const struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
    const struct itimerval often = {.it_interval = {.tv_usec = 10000}, .it_value = {.tv_usec = 10000}};
    NEED(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0, "setitimer");
    kill(getppid(), SIGSTOP);
    struct ibv_mr *mr = ibv_reg_mr(ends[0].pd, ends[0].buffer, 64, IBV_ACCESS_LOCAL_WRITE);
    printf("ibv_reg_mr: %s\n", outcome(mr ? 0 : errno));
    kill(getppid(), SIGCONT);
}

/* A list of requests, of which a rule refuses one: those before it are posted. */
static void list_of_sends(void)
{
    struct ibv_sge sges[REQUESTS];
    struct ibv_send_wr wrs[REQUESTS], *bad = NULL;
    for (int i = 0; i < REQUESTS; i++) {
        wrs[i] = write_request(1 + (uint64_t)i, &sges[i]);
        wrs[i].next = i + 1 < REQUESTS ? &wrs[i + 1] : NULL;
    }
    const int error = ibv_post_send(ends[0].qp, wrs, &bad);
    printf("ibv_post_send: %s, bad_wr %d\n", outcome(error), bad ? (int)bad->wr_id : 0);
    print_completions(0, error ? (int)bad->wr_id - 1 : REQUESTS);
    printf("list %s\n", wrs[0].next == &wrs[1] && wrs[1].next == &wrs[2] ? "unchanged" : "CHANGED");
}

static void receives(void)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = REQUESTS, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(ends[0].pd, &init);
    struct ibv_sge sge = {(uintptr_t)ends[0].buffer, 64, ends[0].mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1}, *bad = NULL;
    NEED(srq, "ibv_create_srq: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
        printf("ibv_post_recv: %s\n", outcome(ibv_post_recv(ends[0].qp, &wr, &bad)));
    for (int i = 0; i < 2; i++)
        printf("ibv_post_srq_recv: %s\n", outcome(ibv_post_srq_recv(srq, &wr, &bad)));
}

static void sends(void)
{
    struct ibv_sge sge;
    struct ibv_send_wr *bad;
    for (uint64_t id = 1; id <= REQUESTS; id++) {
        struct ibv_send_wr wr = write_request(id, &sge);
        NEED(ibv_post_send(ends[0].qp, &wr, &bad) == 0, "ibv_post_send");
    }
    print_completions(0, REQUESTS);
}

/* A message, whose receive fails. */
static void receive(void)
{
    struct ibv_sge to = {(uintptr_t)ends[1].buffer, 64, ends[1].mr->lkey}, from;
    struct ibv_recv_wr receives[2] = {{.wr_id = 101, .next = &receives[1], .sg_list = &to, .num_sge = 1},
                                      {.wr_id = 102, .sg_list = &to, .num_sge = 1}};
    struct ibv_recv_wr *bad_receive;
    struct ibv_send_wr wr = write_request(1, &from), *bad;
    wr.opcode = IBV_WR_SEND;
    NEED(ibv_post_recv(ends[1].qp, receives, &bad_receive) == 0, "ibv_post_recv");
    NEED(ibv_post_send(ends[0].qp, &wr, &bad) == 0, "ibv_post_send");
    print_completions(1, 2);
}

/* Waits for an asynchronous event, and prints it. */
static void event(void)
{
    struct pollfd readable = {.fd = ends[0].context->async_fd, .events = POLLIN};
    struct ibv_async_event found;
    NEED(poll(&readable, 1, 10000) == 1, "no event");
    NEED(ibv_get_async_event(ends[0].context, &found) == 0, "ibv_get_async_event: %s", strerror(errno));
    printf("event: %s", ibv_event_type_str(found.event_type));
    if (found.event_type == IBV_EVENT_QP_FATAL)
        printf(" of the queue pair: %s\n", found.element.qp == ends[1].qp ? "right" : "WRONG");
    else
        printf(", port %d\n", found.element.port_num);
    ibv_ack_async_event(&found);
}

/* How long a call takes at least, in steps of 100 ms. */
static void duration(void)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    struct ibv_pd *pd = ibv_alloc_pd(ends[0].context);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const long milliseconds = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
    printf("ibv_alloc_pd: %s after %s ms\n", outcome(pd ? 0 : errno), milliseconds >= 100 ? "100 or more" : "few");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"regions", regions}, {"list", list_of_sends}, {"receives", receives}, {"sends", sends},
                 {"receive", receive}, {"event", event},        {"duration", duration},
                 {"stopped", stopped}};
    void (*run)(void) = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (argc == 2 && strcmp(argv[1], cases[i].name) == 0)
            run = cases[i].run;
    NEED(run, "usage: injected CASE");
    create_pair(&ends[0], &ends[1], open_named(NULL), &default_options);
    run();
    return 0;
}
