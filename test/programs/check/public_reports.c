/*
 * What public reports describe, each in a few lines, for docs/reference/public-reports.md: public_reports REPORT. A run
 * ends by itself, or is ended by a time limit.
 */
#include "../../../docs/findings/pair.h"

#include <arpa/inet.h>
#include <rdma/rdma_cma.h>

static struct end one, other;

static int writes(uint64_t number)
{
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, wr = {
                                 .wr_id = number,
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = IBV_WR_RDMA_WRITE,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.rdma = {.remote_addr = address_of(&other), .rkey = other.mr->rkey},
                             };
    return ibv_post_send(one.qp, &wr, &bad);
}

/* Mooncake #3299: the peer is gone, and each failure makes a new queue pair to it. */
static void reconnects(void)
{
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    other.qp = NULL;
    for (int attempt = 0; attempt < 8; attempt++) {
        check(writes(1), "ibv_post_send");
        completion(&one);
        check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
        struct ibv_qp_init_attr init = small_qp();
        init.send_cq = init.recv_cq = one.cq;
        create_queue_pair(&one, init);
        to_init(&one);
        to_rtr(&one, NULL);
        to_rts(&one);
    }
}

/* nccl #2119: an element is taken out of a queue, its post is refused, and the element is lost. */
static void loses_element(void)
{
    for (uint64_t element = 0; element < 4; element++)
        writes(element);
    for (int done = 0; done < 4; done++)
        completion(&one);
}

/* nccl #2203: a flag in memory is waited for, while the completion that says what failed is not polled. */
static void spins_on_memory(void)
{
    volatile char *const flag = other.buffer;
    one.buffer[0] = 1;
    other.mr->rkey++;
    check(writes(1), "ibv_post_send");
    while (*flag == 0)
        ;
}

/* FastDeploy #8091: a list for which there is no room is posted again from its head. */
static void posts_again(void)
{
    enum { COUNT = 64 };
    struct ibv_send_wr list[COUNT], *bad;
    struct ibv_sge sge = all_of(&one);
    for (int i = 0; i < COUNT; i++)
        list[i] = (struct ibv_send_wr){
            .wr_id = (uint64_t)i,
            .sg_list = &sge,
            .num_sge = 1,
            .opcode = IBV_WR_RDMA_WRITE,
            .wr.rdma = {.remote_addr = address_of(&other), .rkey = other.mr->rkey},
            .next = i + 1 < COUNT ? &list[i + 1] : NULL,
        };
    for (int attempt = 0; attempt < 8 && ibv_post_send(one.qp, list, &bad) != 0; attempt++)
        usleep(1000);
}

/* SPDK #3807: what a wr_id points to is freed with the queue pair, and its completion is polled afterwards. */
static void frees_request(void)
{
    int *const request = need(calloc(1, sizeof *request), "calloc");
    struct ibv_wc wc;
    check(writes((uintptr_t)request), "ibv_post_send");
    usleep(100000);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    free(request);
    if (ibv_poll_cq(one.cq, 1, &wc) > 0)
        printf("request %d\n", *(int *)(uintptr_t)wc.wr_id);
}

/* uccl #1049: room in a window is waited for, which only its own unpolled completions would make. */
static void waits_for_room(void)
{
    int outstanding = 0;
    struct ibv_wc wc;
    for (uint64_t i = 0; i < 32; i++) {
        while (outstanding == 4)
            usleep(10);
        check(writes(i), "ibv_post_send");
        outstanding++;
        if (i % 16 == 15)
            while (ibv_poll_cq(one.cq, 1, &wc) > 0)
                outstanding--;
    }
}

/* 3FS #320: the first message has no bytes, and the network drops such messages. */
static void greets_with_nothing(void)
{
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, (struct ibv_sge){.lkey = one.mr->lkey}, 0, 0);
    completion(&one);
}

static struct rdma_cm_event *next_event(struct rdma_event_channel *channel)
{
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    return event;
}

static void create_cm_queue_pair(struct rdma_cm_id *id)
{
    struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .cap = {1, 1, 1, 1}};
    check(rdma_create_qp(id, NULL, &init), "rdma_create_qp");
}

static void connect_to(struct sockaddr *address)
{
    struct rdma_event_channel *const channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(id, NULL, address, 2000), "rdma_resolve_addr");
    rdma_ack_cm_event(next_event(channel));
    check(rdma_resolve_route(id, 2000), "rdma_resolve_route");
    rdma_ack_cm_event(next_event(channel));
    create_cm_queue_pair(id);
    check(rdma_connect(id, NULL), "rdma_connect");
    rdma_ack_cm_event(next_event(channel));
    rdma_ack_cm_event(next_event(channel));
    rdma_disconnect(id);
    _exit(0);
}

/* libevpl #52: a server frees its connection when it disconnects it; DISCONNECTED comes later, for the same identifier.
 * */
static void frees_connection(void)
{
    struct connection {
        int number;
    };
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(18591)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    struct rdma_event_channel *const channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *listener;
    check(rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(listener, (struct sockaddr *)&address), "rdma_bind_addr");
    check(rdma_listen(listener, 1), "rdma_listen");
    if (fork() == 0)
        connect_to((struct sockaddr *)&address);
    struct rdma_cm_event *event = next_event(channel);
    struct rdma_cm_id *const id = event->id;
    id->context = need(calloc(1, sizeof(struct connection)), "calloc");
    rdma_ack_cm_event(event);
    create_cm_queue_pair(id);
    check(rdma_accept(id, NULL), "rdma_accept");
    rdma_ack_cm_event(next_event(channel));
    check(rdma_disconnect(id), "rdma_disconnect");
    free(id->context);
    event = next_event(channel);
    printf("connection %d: %s\n", ((struct connection *)event->id->context)->number, rdma_event_str(event->event));
    rdma_ack_cm_event(event);
    rdma_destroy_qp(id);
    rdma_destroy_id(id);
    rdma_destroy_id(listener);
    wait(NULL);
}

/* UCX #10325: one end has a traffic class, and the other answers in class 0. */
static void answers_in_other_class(void)
{
    struct end near = {0}, far = {0};
    make_end(&near);
    make_end(&far);
    near.attr.ah_attr.grh.traffic_class = 106;
    connect_ends(&near, &far);
    destroy_end(&near);
    destroy_end(&far);
}

/* rdma-core #1637: the hop limit of an address handle that user space makes goes out as given, to another subnet. */
static void makes_short_way(void)
{
    struct ibv_ah_attr attr = one.attr.ah_attr;
    memcpy(attr.grh.dgid.raw + 10, "\xff\xff\xc0\x00\x02\x01", 6);
    struct ibv_ah *ah = need(ibv_create_ah(one.pd, &attr), "ibv_create_ah");
    check(ibv_destroy_ah(ah), "ibv_destroy_ah");
}

static const struct {
    const char *name;
    void (*run)(void);
} reports[] = {
    {"ucx-10325", answers_in_other_class}, {"rdma-core-1637", makes_short_way},
    {"mooncake-3299", reconnects},    {"nccl-2119", loses_element},  {"nccl-2203", spins_on_memory},
    {"fastdeploy-8091", posts_again}, {"spdk-3807", frees_request},  {"uccl-1049", waits_for_room},
    {"3fs-320", greets_with_nothing}, {"libevpl-52", frees_connection},
};

int main(int count, char **arguments)
{
    const size_t all = sizeof reports / sizeof *reports;
    size_t i = 0;
    while (i < all && !(count == 2 && strcmp(arguments[1], reports[i].name) == 0))
        i++;
    if (i == all) {
        fprintf(stderr, "usage: %s REPORT\n", arguments[0]);
        return 1;
    }
    if (reports[i].run != frees_connection)
        make_pair(&one, &other);
    reports[i].run();
    return 0;
}
