/*
 * A pool of RC connections to a server that survives every single failure (test/system/failures/walk.test.ts): a
 * connection whose request fails is made anew, with the index that the GID has now; a device that has failed is opened
 * again; a server that has ended is started again. Writes a number through each connection in turns, and reads it back.
 */
#include "recovering.h"

#define SLOTS 2
#define ROUNDS 6

struct question {
    uint32_t slot;
    struct address client;
};
struct answer {
    uint32_t ok;
    struct address server;
};

static struct device device;
static const char *program;
static struct ibv_qp *slots[SLOTS];
static struct address peers[SLOTS];

static void drop(int slot)
{
    if (slots[slot])
        ibv_destroy_qp(slots[slot]);
    slots[slot] = NULL;
}

static void open_again(void)
{
    for (int i = 0; i < SLOTS; i++)
        drop(i);
    close_device(&device);
    open_device(&device);
}

/* A queue pair in INIT, and its address. False: something failed. */
static bool create(int slot, struct address *address, int *index)
{
    struct ibv_qp_init_attr init = {.send_cq = device.cq,
                                    .recv_cq = device.cq,
                                    .cap = {.max_send_wr = 4, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
                                    .qp_type = IBV_QPT_RC};
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE};
    drop(slot);
    *index = find_gid(&device, &address->gid);
    if (*index < 0 || !(slots[slot] = ibv_create_qp(device.pd, &init)))
        return false;
    address->qpn = slots[slot]->qp_num;
    address->rkey = device.mr->rkey;
    address->buffer = (uintptr_t)device.buffer;
    return ibv_modify_qp(slots[slot], &attr,
                         IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0;
}

static bool join(int slot, const struct address *peer, int index)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = IBV_MTU_1024,
                               .dest_qp_num = peer->qpn,
                               .max_dest_rd_atomic = 1,
                               .min_rnr_timer = 1,
                               .ah_attr = {.is_global = 1,
                                           .port_num = 1,
                                           .grh = {.dgid = peer->gid, .sgid_index = (uint8_t)index, .hop_limit = 64}}};
    if (ibv_modify_qp(slots[slot], &attr,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) != 0)
        return false;
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = 12;
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    attr.max_rd_atomic = 1;
    return ibv_modify_qp(slots[slot], &attr,
                         IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                             IBV_QP_MAX_QP_RD_ATOMIC) == 0;
}

/* ---- the server ---- */

static int serve(int fd)
{
    struct question question;
    open_device(&device);
    while (recv(fd, &question, sizeof question, 0) == (ssize_t)sizeof question) {
        struct answer answer = {0};
        int index;
        succeeded();
        if (has_failed(&device))
            open_again();
        for (int attempts = 0; !answer.ok && attempts < 20; attempts++) {
            answer.ok = create((int)question.slot % SLOTS, &answer.server, &index) &&
                        join((int)question.slot % SLOTS, &question.client, index);
            if (answer.ok)
                break;
            failed("the server connects slot %u: %s", question.slot, strerror(errno));
            if (has_failed(&device))
                open_again();
        }
        if (send(fd, &answer, sizeof answer, MSG_NOSIGNAL) < 0)
            break;
    }
    for (int i = 0; i < SLOTS; i++)
        drop(i);
    close_device(&device);
    return 0;
}

/* ---- the client ---- */

/* Makes a connection anew. False: try again. */
static bool reconnect(int slot)
{
    struct question question = {.slot = (uint32_t)slot};
    struct answer answer;
    int index;
    if (!create(slot, &question.client, &index)) {
        failed("the client connects slot %d: %s", slot, strerror(errno));
        if (has_failed(&device))
            open_again();
        return false;
    }
    if (!ask(&question, sizeof question, &answer, sizeof answer)) {
        failed("the server does not answer");
        start_server(program);
        return false;
    }
    if (!answer.ok || !join(slot, &answer.server, index)) {
        failed("slot %d is not connected: %s", slot, strerror(errno));
        drop(slot);
        return false;
    }
    peers[slot] = answer.server;
    return true;
}

/* One request. False: the connection is gone. */
static bool request(int slot, enum ibv_wr_opcode opcode, uint8_t *at)
{
    struct ibv_sge sge = {(uintptr_t)at, sizeof(uint64_t), device.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED}, *bad;
    struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
    wr.wr.rdma.remote_addr = peers[slot].buffer + (uint64_t)slot * sizeof(uint64_t);
    wr.wr.rdma.rkey = peers[slot].rkey;
    wr.wr_id = slots[slot]->qp_num;
    if (ibv_post_send(slots[slot], &wr, &bad) != 0)
        return false;
    /* Of an earlier queue pair there may be flushed requests. */
    while (completed(&device, &wc, PATIENCE / 2))
        if (wc.qp_num == wr.wr_id)
            return wc.status == IBV_WC_SUCCESS;
    return false;
}

static void transfer(int slot, uint64_t number)
{
    for (;;) {
        if (has_failed(&device)) {
            failed("the device has failed");
            open_again();
        }
        if (!slots[slot] && !reconnect(slot))
            continue;
        uint64_t back = 0;
        memcpy(device.buffer, &number, sizeof number);
        if (request(slot, IBV_WR_RDMA_WRITE, device.buffer) && request(slot, IBV_WR_RDMA_READ, device.buffer + 64)) {
            memcpy(&back, device.buffer + 64, sizeof back);
            NEED(back == number, "wrote %lu and read %lu", number, back);
            succeeded();
            return;
        }
        failed("a request of slot %d fails", slot);
        drop(slot);
    }
}

int main(int argc, char **argv)
{
    NEED(argc == 1 || (argc == 3 && strcmp(argv[1], "serve") == 0), "usage: pool");
    program = argv[0];
    succeeded();
    if (argc == 3)
        return serve(atoi(argv[2]));
    start_server(program);
    open_device(&device);
    for (int i = 0; i < ROUNDS * SLOTS; i++)
        transfer(i % SLOTS, 1000 + (uint64_t)i);
    for (int i = 0; i < SLOTS; i++)
        drop(i);
    close_device(&device);
    close(control);
    waitpid(server, NULL, 0);
    puts("done");
    return 0;
}
