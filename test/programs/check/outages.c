/*
 * A WRITE between two connected queue pairs fails in an outage. `outages HOW [BEFORE [AFTER]]`: shell commands before
 * the WRITE and after its failure. HOW: `recovers` connects again and writes, `closes` closes the device, `dies` exits,
 * `again` connects again with the sgid_index from before. `forgets` names a queue pair that it has destroyed.
 */
#include "../../../docs/findings/pair.h"

#include <stdbool.h>

static void run(const char *command)
{
    if (command && *command && system(command) != 0)
        fprintf(stderr, "failed: %s\n", command);
}

/* The index of the first GID that stands for an IPv4 address. */
static int find_index(void)
{
    for (int i = 0; i < 16; i++)
        if (ibv_query_gid(context, 1, i, &gid) == 0 && gid.raw[10] == 0xff && gid.raw[11] == 0xff)
            return i;
    return -1;
}

static int connect_at(struct end *one, struct end *other, int index)
{
    for (struct end *end = one; end; end = end == one ? other : NULL) {
        end->attr.ah_attr.grh.sgid_index = index;
        end->attr.ah_attr.grh.dgid = gid;
        end->attr.retry_cnt = 1;
        end->attr.timeout = 10;
    }
    one->attr.qp_state = IBV_QPS_RTR;
    one->attr.dest_qp_num = other->qp->qp_num;
    const int error = ibv_modify_qp(one->qp, &one->attr,
                                    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                        IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (error)
        return error;
    to_rts(one);
    to_rtr(other, one);
    to_rts(other);
    return 0;
}

static void reset(struct end *end)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    check(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE), "ibv_modify_qp to RESET");
    to_init(end);
}

int main(int count, char **arguments)
{
    static const char *const known[] = {"recovers", "closes", "dies", "again", "forgets"};
    const char *how = count > 1 ? arguments[1] : "recovers";
    bool is_known = false;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        is_known = is_known || strcmp(how, known[i]) == 0;
    if (!is_known)
        return fprintf(stderr, "usage: outages recovers|closes|dies|again|forgets [BEFORE [AFTER]]\n"), 1;
    struct end one = {0}, other = {0};
    open_device();
    int index = find_index();
    make_end(&one);
    make_end(&other);
    check(connect_at(&one, &other, index), "connect");
    if (strcmp(how, "forgets") == 0) {
        struct end third = {0};
        make_end(&third);
        reset(&one);
        const uint32_t number = third.qp->qp_num;
        destroy_end(&third);
        one.attr.dest_qp_num = number;
        to_rtr(&one, &other);
        to_rts(&one);
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
        completion(&one);
        return destroy_pair(&one, &other);
    }
    run(count > 2 ? arguments[2] : NULL);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    const int isLost = completion(&one) != IBV_WC_SUCCESS;
    run(count > 3 ? arguments[3] : NULL);
    if (!isLost || strcmp(how, "dies") == 0)
        exit(isLost);
    if (strcmp(how, "closes") == 0)
        return destroy_pair(&one, &other);
    reset(&one);
    reset(&other);
    if (strcmp(how, "recovers") == 0)
        index = find_index();
    if (connect_at(&one, &other, index) == 0) {
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
        completion(&one);
    }
    return destroy_pair(&one, &other);
}
