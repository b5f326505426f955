/*
 * What a post and a poll cost, for `npm run bench -- host` and the system calls of
 * test/system/check/host-cost.long.test.ts: receives are posted to a queue pair, flushed and polled one by one.
 *
 *   wrapped ROUNDS     prints the nanoseconds of a post, and of a poll with a completion
 */
#include "../endpoint.h"

#include <time.h>

/* Of one round: fewer records than a ring of --host holds, which is read during the pause. */
#define POSTS 1000
static const struct timespec pause_after_round = {.tv_nsec = 30000000};

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void to_state(struct ibv_qp *qp, enum ibv_qp_state state)
{
    struct ibv_qp_attr attr = {.qp_state = state, .port_num = 1};
    const int mask = state == IBV_QPS_INIT ? IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS
                                           : IBV_QP_STATE;
    NEED(ibv_modify_qp(qp, &attr, mask) == 0, "ibv_modify_qp: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    const int rounds = argc == 2 ? atoi(argv[1]) : 0;
    NEED(rounds > 0, "usage: wrapped ROUNDS");
    struct ibv_device **devices = ibv_get_device_list(NULL);
    NEED(devices && devices[0], "no device");
    struct ibv_context *context = ibv_open_device(devices[0]);
    NEED(context, "ibv_open_device: %s", strerror(errno));
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_cq *cq = ibv_create_cq(context, POSTS, NULL, NULL, 0);
    struct ibv_qp_init_attr init = {.send_cq = cq,
                                    .recv_cq = cq,
                                    .qp_type = IBV_QPT_RC,
                                    .cap = {.max_send_wr = 1, .max_recv_wr = POSTS, .max_recv_sge = 1}};
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    uint64_t posts = 0, polls = 0;
    for (int round = 0; round < rounds; round++) {
        struct ibv_recv_wr wr = {.wr_id = 1}, *bad;
        struct ibv_wc wc;
        to_state(qp, IBV_QPS_INIT);
        uint64_t begin = now();
        for (int i = 0; i < POSTS; i++)
            NEED(ibv_post_recv(qp, &wr, &bad) == 0, "ibv_post_recv");
        posts += now() - begin;
        to_state(qp, IBV_QPS_ERR);
        /* The first ones are not timed: the flush must be over. */
        int found = 0;
        while (found < POSTS / 2)
            found += ibv_poll_cq(cq, 1, &wc);
        begin = now();
        while (found < POSTS)
            found += ibv_poll_cq(cq, 1, &wc);
        polls += 2 * (now() - begin);
        to_state(qp, IBV_QPS_RESET);
        nanosleep(&pause_after_round, NULL);
    }
    const double calls = (double)rounds * POSTS;
    printf("%.1f %.1f\n", (double)posts / calls, (double)polls / calls);
    return 0;
}
