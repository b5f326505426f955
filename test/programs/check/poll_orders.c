/*
 * Calls on extended CQs in lists, for `userdma check` (test/system/check/poll-orders.test.ts). Each argument is a list
 * of calls on a new CQ with COMPLETIONS completions: CALL,CALL,… or [WORDS]CALL,CALL,…
 *
 *   start, next, end, poll (ibv_poll_cq), resize, destroy_qp, destroy_cq; read_FIELD. `drain` calls next until it fails
 *   thread:CALL   another thread, which ends, makes the call
 *   exit          the program ends
 *   take          as start, and end if it has found a completion
 *   two:CALL      two threads make the call TURNS times, one after the other
 *   rush          a thread starts a poll while another one has a poll open
 *
 * A word before the list: `none` (wc_flags 0), `all` (IBV_WC_STANDARD_FLAGS, the default), `empty` (no completions),
 * `single` (SINGLE_THREADED), `domain` (a CQ and queue pair of a thread domain).
 */
#include "../../../docs/findings/pair.h"

#include <pthread.h>
#include <stdbool.h>

#define COMPLETIONS 3
#define TURNS 4

struct state {
    struct end one, other;
    struct ibv_cq_ex *cq;
    struct ibv_pd *domain;
    struct ibv_td *td;
};

static struct state *state;
static pthread_barrier_t barrier;

static void make(struct state *made, const char *words)
{
    const bool is_single = strstr(words, "single"), has_domain = strstr(words, "domain");
    struct ibv_cq_init_attr_ex cq = {.cqe = 64, .wc_flags = strstr(words, "none") ? 0 : IBV_WC_STANDARD_FLAGS};
    make_end(&made->one);
    make_end(&made->other);
    struct ibv_pd *pd = made->one.pd;
    if (is_single) {
        cq.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS;
        cq.flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
    }
    if (has_domain) {
        struct ibv_td_init_attr thread = {0};
        made->td = need(ibv_alloc_td(context, &thread), "ibv_alloc_td");
        struct ibv_parent_domain_init_attr domain = {.pd = pd, .td = made->td};
        made->domain = need(ibv_alloc_parent_domain(context, &domain), "ibv_alloc_parent_domain");
        cq.comp_mask = IBV_CQ_INIT_ATTR_MASK_PD;
        cq.parent_domain = pd = made->domain;
    }
    check(ibv_destroy_qp(made->one.qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(made->one.cq), "ibv_destroy_cq");
    made->cq = need(ibv_create_cq_ex(context, &cq), "ibv_create_cq_ex");
    made->one.cq = ibv_cq_ex_to_cq(made->cq);
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = made->one.cq;
    made->one.qp = need(ibv_create_qp(pd, &init), "ibv_create_qp");
    to_init(&made->one);
    connect_ends(&made->one, &made->other);
    for (int i = 0; i < COMPLETIONS && !strstr(words, "empty"); i++) {
        post_receive(&made->one, (struct ibv_sge){.addr = address_of(&made->one) + 8 * (uint64_t)i, .length = 8, .lkey = made->one.mr->lkey});
        struct ibv_sge sge = all_of(&made->other);
        sge.length = 8;
        post(&made->other, IBV_WR_SEND, sge, 0, 0);
        if (completion(&made->other) != IBV_WC_SUCCESS)
            exit(1);
    }
}

static void destroy(struct state *made)
{
    if (made->one.qp)
        check(ibv_destroy_qp(made->one.qp), "ibv_destroy_qp");
    if (made->one.cq)
        check(ibv_destroy_cq(made->one.cq), "ibv_destroy_cq");
    if (made->domain)
        check(ibv_dealloc_pd(made->domain), "ibv_dealloc_pd");
    if (made->td)
        check(ibv_dealloc_td(made->td), "ibv_dealloc_td");
    check(ibv_dereg_mr(made->one.mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(made->one.pd), "ibv_dealloc_pd");
    destroy_end(&made->other);
}

static int start(void)
{
    struct ibv_poll_cq_attr none = {0};
    return ibv_start_poll(state->cq, &none);
}

static void receive(void)
{
    post_receive(&state->one, all_of(&state->one));
}

#define READ(field)                                                                                                    \
    if (strcmp(call, "read_" #field) == 0)                                                                             \
        return (void)ibv_wc_read_##field(cq);

static void run(const char *call)
{
    struct ibv_cq_ex *cq = state->cq;
    READ(opcode)
    READ(vendor_err)
    READ(byte_len)
    READ(imm_data)
    READ(qp_num)
    READ(src_qp)
    READ(wc_flags)
    READ(slid)
    READ(sl)
    READ(dlid_path_bits)
    READ(completion_ts)
    READ(cvlan)
    READ(flow_tag)
    READ(completion_wallclock_ns)
    if (strcmp(call, "read_tm_info") == 0) {
        struct ibv_wc_tm_info info;
        ibv_wc_read_tm_info(cq, &info);
    } else if (strcmp(call, "start") == 0) {
        start();
    } else if (strcmp(call, "next") == 0) {
        (void)ibv_next_poll(cq);
    } else if (strcmp(call, "drain") == 0) {
        while (ibv_next_poll(cq) == 0)
            ;
    } else if (strcmp(call, "end") == 0) {
        ibv_end_poll(cq);
    } else if (strcmp(call, "take") == 0) {
        if (start() == 0)
            ibv_end_poll(cq);
    } else if (strcmp(call, "receive") == 0) {
        receive();
    } else if (strcmp(call, "poll") == 0) {
        struct ibv_wc wc;
        ibv_poll_cq(state->one.cq, 1, &wc);
    } else if (strcmp(call, "resize") == 0) {
        ibv_resize_cq(state->one.cq, 128);
    } else if (strcmp(call, "destroy_qp") == 0) {
        check(ibv_destroy_qp(state->one.qp), "ibv_destroy_qp");
        state->one.qp = NULL;
    } else if (strcmp(call, "destroy_cq") == 0) {
        check(ibv_destroy_cq(state->one.cq), "ibv_destroy_cq");
        state->one.cq = NULL;
    } else if (strcmp(call, "exit") == 0) {
        exit(0);
    } else {
        fprintf(stderr, "poll_orders: %s is no call\n", call);
        exit(2);
    }
}

static void *run_in_thread(void *call)
{
    run(call);
    return NULL;
}

static void *run_in_turns(void *call)
{
    /* The first character tells whose turn is first. */
    const char *text = call;
    for (int i = 0; i < TURNS; i++) {
        if (i % 2 == (*text == '1'))
            run(text + 1);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

/* Enters the poll of the other thread, which waits in it. */
static void *enter_other(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier);
    run("take");
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void run_prefixed(char *call)
{
    pthread_t thread;
    if (strncmp(call, "thread:", 7) == 0) {
        check(pthread_create(&thread, NULL, run_in_thread, call + 7), "pthread_create");
        check(pthread_join(thread, NULL), "pthread_join");
    } else if (strncmp(call, "two:", 4) == 0) {
        char other[32];
        snprintf(other, sizeof other, "1%s", call + 4);
        call[3] = '0';
        check(pthread_barrier_init(&barrier, NULL, 2), "pthread_barrier_init");
        check(pthread_create(&thread, NULL, run_in_turns, other), "pthread_create");
        run_in_turns(call + 3);
        check(pthread_join(thread, NULL), "pthread_join");
    } else if (strcmp(call, "rush") == 0) {
        check(pthread_barrier_init(&barrier, NULL, 2), "pthread_barrier_init");
        check(pthread_create(&thread, NULL, enter_other, NULL), "pthread_create");
        start();
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        ibv_end_poll(state->cq);
        check(pthread_join(thread, NULL), "pthread_join");
    } else {
        run(call);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return fprintf(stderr, "usage: poll_orders LIST...\n"), 1;
    open_device();
    for (int i = 1; i < argc; i++) {
        char *calls = argv[i], *words = "";
        struct state made = {0};
        if (*calls == '[') {
            words = calls + 1;
            calls = strchr(calls, ']');
            *calls++ = '\0';
        }
        make(&made, words);
        state = &made;
        for (char *rest, *call = strtok_r(calls, ",", &rest); call; call = strtok_r(NULL, ",", &rest))
            run_prefixed(call);
        destroy(&made);
    }
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
