/* The peer's process ends without a last message. */
#include "pair.h"

/* The child sends its queue pair's number to the parent and receives the parent's. Returns the peer. */
static struct end exchange(struct end *end, const int to, const int from)
{
    static struct ibv_qp qp;
    check(write(to, &end->qp->qp_num, 4) != 4 || read(from, &qp.qp_num, 4) != 4, "exchange");
    return (struct end){.qp = &qp};
}

static void connect_to(struct end *end, const int to, const int from, const int receives)
{
    char ready = 0;
    open_device();
    make_end(end);
    struct end peer = exchange(end, to, from);
    to_rtr(end, &peer);
    if (receives)
        post_receive(end, all_of(end)); /* FAULT */
    to_rts(end);
    check(write(to, &ready, 1) != 1 || read(from, &ready, 1) != 1, "ready");
}

int main(void)
{
    int up[2], down[2];
    struct end end = {0};
    check(pipe(up) || pipe(down), "pipe");
    if (fork() == 0) {
        connect_to(&end, up[1], down[0], 0);
#ifdef FIXED
        post(&end, IBV_WR_SEND, all_of(&end), 0, 0);
        completion(&end);
        destroy_end(&end);
        check(ibv_close_device(context), "ibv_close_device");
#endif
        _exit(0);
    }
    connect_to(&end, down[1], up[0], 1);
    alarm(8);
    completion(&end);
    check(wait(NULL) < 0, "wait");
    destroy_end(&end);
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
