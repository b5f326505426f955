/* The number of a message is its immediate data, and htonl is missing. */
#include <arpa/inet.h>

#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    for (uint32_t number = 1; number <= 2; number++) {
        post_receive(&other, all_of(&other));
        struct ibv_sge sge = all_of(&one);
        struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND_WITH_IMM};
        wr.imm_data = FAULT_OR(number, htonl(number));
        check(ibv_post_send(one.qp, &wr, &bad), "ibv_post_send"); /* FAULT */
        completion(&one);
        struct ibv_wc wc;
        while (ibv_poll_cq(other.cq, 1, &wc) == 0)
            ;
        printf("message %u\n", ntohl(wc.imm_data));
    }
    return destroy_pair(&one, &other);
}
