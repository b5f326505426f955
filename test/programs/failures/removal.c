/*
 * A program whose receives are in an SRQ, when its device is removed (R23; IBA 10.2.9, 11.6.3). Receives of an SRQ are
 * not flushed. The removal drops the unread events of objects.
 *
 *   removal [-d DEVICE]      prints "ready", waits for a line of input, which comes after the removal, and prints
 *                            "gone" after its checks
 *
 * The first unexpected result is printed, and the exit status is 1.
 */
#include <fcntl.h>

#include "../endpoint.h"

#define REQUESTS 5
#define CHUNK 256

static struct endpoint ends[2];
static struct ibv_srq *srq;

static void set_up(const char *device)
{
    struct options options = default_options;
    options.device = device;
    options.events = true;
    struct ibv_context *context = open_named(options.device);
    for (int side = 0; side < 2; side++)
        create_endpoint(&ends[side], context, &options, 4096, 100 + (uint32_t)side);
    struct ibv_srq_init_attr srq_init = {.attr = {.max_wr = REQUESTS, .max_sge = 1}};
    srq = ibv_create_srq(ends[1].pd, &srq_init);
    NEED(srq, "ibv_create_srq: %s", strerror(errno));
    NEED(ibv_destroy_qp(ends[1].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    struct ibv_qp_init_attr init = {.send_cq = ends[1].cq,
                                    .recv_cq = ends[1].cq,
                                    .srq = srq,
                                    .cap = {.max_send_wr = 1, .max_send_sge = 1},
                                    .qp_type = IBV_QPT_RC};
    ends[1].qp = ibv_create_qp(ends[1].pd, &init);
    NEED(ends[1].qp, "ibv_create_qp: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    NEED(ibv_modify_qp(ends[1].qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT: %s", strerror(errno));
    for (int side = 0; side < 2; side++) {
        const struct address peer = address_of(&ends[!side]);
        connect_to(&ends[side], &peer, &options);
    }
    for (uint64_t id = 0; id < REQUESTS; id++) {
        struct ibv_sge sge = {(uintptr_t)ends[1].buffer + id * CHUNK, CHUNK, ends[1].mr->lkey};
        struct ibv_recv_wr wr = {.wr_id = 100 + id, .sg_list = &sge, .num_sge = 1}, *bad;
        NEED(ibv_post_srq_recv(srq, &wr, &bad) == 0, "ibv_post_srq_recv: %s", strerror(errno));
    }
    /* The first message takes the SRQ below its limit. */
    struct ibv_srq_attr limit = {.srq_limit = REQUESTS};
    NEED(ibv_modify_srq(srq, &limit, IBV_SRQ_LIMIT) == 0, "ibv_modify_srq: %s", strerror(errno));
}

/* Causes a completion event of each CQ and a limit event, which stay unread. */
static void send_one(void)
{
    for (int side = 0; side < 2; side++)
        NEED(ibv_req_notify_cq(ends[side].cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno));
    struct ibv_sge sge = {(uintptr_t)ends[0].buffer, 8, ends[0].mr->lkey};
    struct ibv_send_wr wr = {
        .wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *bad;
    NEED(ibv_post_send(ends[0].qp, &wr, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(ends[0].cq, 1, &wc)) == 0)
        ;
    NEED(found == 1 && wc.status == IBV_WC_SUCCESS, "the message was not sent: %d, %s", found, strerror(errno));
}

static void check_removal(void)
{
    struct ibv_context *context = ends[1].context;
    struct ibv_async_event event;
    NEED(ibv_get_async_event(context, &event) == 0, "ibv_get_async_event: %s", strerror(errno));
    NEED(event.event_type == IBV_EVENT_DEVICE_FATAL, "event %d instead of IBV_EVENT_DEVICE_FATAL", event.event_type);
    ibv_ack_async_event(&event);
    NEED(ibv_get_async_event(context, &event) < 0 && errno == EIO, "after the last event: %s", strerror(errno));
    struct ibv_cq *cq;
    void *cq_context;
    for (int is_nonblocking = 0; is_nonblocking < 2; is_nonblocking++) {
        NEED(fcntl(ends[1].channel->fd, F_SETFL, is_nonblocking ? O_NONBLOCK : 0) == 0, "fcntl: %s", strerror(errno));
        NEED(ibv_get_cq_event(ends[1].channel, &cq, &cq_context) < 0 && errno == EIO, "ibv_get_cq_event: %s",
             strerror(errno));
    }
    /* The receive of the message is polled; then ibv_poll_cq fails, and no receive of the SRQ is flushed. */
    struct ibv_wc wc;
    int found;
    NEED(ibv_poll_cq(ends[1].cq, 1, &wc) == 1 && wc.status == IBV_WC_SUCCESS && wc.wr_id == 100, "no completion");
    while ((found = ibv_poll_cq(ends[1].cq, 1, &wc)) == 0)
        ;
    NEED(found < 0 && errno == EIO, "ibv_poll_cq: %d, request %u, status %d", found, (unsigned)wc.wr_id, wc.status);
    NEED(ibv_query_srq(srq, &(struct ibv_srq_attr){0}) == EIO, "ibv_query_srq");
}

/* With RDMAV_ALLOW_DISASSOC_DESTROY in the environment libibverbs treats EIO as success. */
static void clean_up(void)
{
    NEED(ibv_destroy_qp(ends[1].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    NEED(ibv_destroy_srq(srq) == 0, "ibv_destroy_srq: %s", strerror(errno));
    NEED(ibv_destroy_qp(ends[0].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    for (int side = 0; side < 2; side++) {
        NEED(ibv_destroy_cq(ends[side].cq) == 0, "ibv_destroy_cq: %s", strerror(errno));
        NEED(ibv_destroy_comp_channel(ends[side].channel) == 0, "ibv_destroy_comp_channel: %s", strerror(errno));
        NEED(ibv_dereg_mr(ends[side].mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
        NEED(ibv_dealloc_pd(ends[side].pd) == 0, "ibv_dealloc_pd: %s", strerror(errno));
    }
    NEED(ibv_close_device(ends[0].context) == 0, "ibv_close_device: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    const char *device = NULL;
    for (int c; (c = getopt(argc, argv, "d:")) != -1;) {
        if (c != 'd')
            fail("usage: %s [-d DEVICE]", argv[0]);
        device = optarg;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    set_up(device);
    send_one();
    printf("ready\n");
    NEED(getchar() != EOF, "no line says that the device was removed");
    check_removal();
    clean_up();
    printf("gone\n");
    return 0;
}
