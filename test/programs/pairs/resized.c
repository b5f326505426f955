/*
 * Resizes a completion queue again and again while RDMA WRITEs complete in it: every completion comes, in order.
 *
 *   resized DEVICE RESIZES
 */
#define _GNU_SOURCE
#include "../endpoint.h"

/* Below the smallest size, and the depth of the send queue. */
#define OUTSTANDING 50
#define MAX_IDLE_POLLS 200000 /* 100 us apart: 20 s */

static struct endpoint one, other;

static void post(uint64_t id)
{
    struct ibv_sge sge = {(uintptr_t)one.buffer, 8, one.mr->lkey};
    struct ibv_send_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE}, *bad;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = (uintptr_t)other.buffer;
    wr.wr.rdma.rkey = other.mr->rkey;
    NEED(ibv_post_send(one.qp, &wr, &bad) == 0, "ibv_post_send: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    static const int sizes[] = {255, 1023, 127, 2047};
    NEED(argc == 3, "usage: resized DEVICE RESIZES");
    const int resizes = atoi(argv[2]);
    create_pair(&one, &other, open_named(argv[1]), &default_options);
    uint64_t posted = 0, polled = 0;
    int done = 0, idle = 0;
    while (done < resizes || polled < posted) {
        while (done < resizes && posted - polled < OUTSTANDING)
            post(posted++);
        struct ibv_wc wc[8];
        const int count = ibv_poll_cq(one.cq, 1 + (int)(polled % 8), wc);
        NEED(count >= 0, "ibv_poll_cq: %d", count);
        for (int i = 0; i < count; i++, polled++)
            NEED(wc[i].status == IBV_WC_SUCCESS && wc[i].wr_id == polled, "after %d resizes: completion %d of wr_id %d",
                 done, (int)wc[i].status, (int)wc[i].wr_id);
        if (count == 0) {
            NEED(++idle < MAX_IDLE_POLLS, "after %d resizes a completion of %d is lost", done, (int)posted);
            usleep(100);
            continue;
        }
        idle = 0;
        if (done < resizes) {
            const int error = ibv_resize_cq(one.cq, sizes[done++ % 4]);
            NEED(error == 0, "ibv_resize_cq: %s", strerror(error));
        }
    }
    puts("good");
    return 0;
}
