/* The completions of sends come to a CQ of their own, which the program does not poll. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    struct end sending = {.cq = need(ibv_create_cq(context, 8, NULL, NULL, 0), "ibv_create_cq")}; /* FAULT */
    struct ibv_qp_init_attr init = small_qp();
    init.cap.max_send_wr = FAULT_OR(64, 8);
    init.send_cq = sending.cq;
    init.recv_cq = one.cq;
    create_queue_pair(&one, init);
    to_init(&one);
    connect_ends(&one, &other);
    const int sends = sending.cq->cqe + 1;
    for (int i = 0; i < sends; i++) {
        post_receive(&other, all_of(&other));
        post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
        completion(&other);
#ifdef FIXED
        completion(&sending);
#endif
    }
    /* A SEND back: until it has completed, the last one has time to complete. */
    post_receive(&one, all_of(&one));
    post(&other, IBV_WR_SEND, all_of(&other), 0, 0);
    completion(&other);
    drain(&one);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(sending.cq), "ibv_destroy_cq");
    one.qp = NULL;
    return destroy_pair(&one, &other);
}
