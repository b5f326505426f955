/*
 * Mistakes in posts, one a run, of which the preload library tells by itself: the argument names it.
 */
#include "../../../docs/findings/cm.h"

static struct end one, other;

static void send_now(struct ibv_send_wr *request)
{
    struct ibv_send_wr *bad;
    struct ibv_wc wc;
    request->send_flags = IBV_SEND_SIGNALED;
    if (ibv_post_send(one.qp, request, &bad) == 0)
        while (ibv_poll_cq(one.cq, 1, &wc) == 0)
            ;
}

static struct ibv_send_wr write_of(struct ibv_sge *sge)
{
    return (struct ibv_send_wr){.wr_id = 1,
                                .sg_list = sge,
                                .num_sge = 1,
                                .opcode = IBV_WR_RDMA_WRITE,
                                .wr.rdma = {address_of(&other), other.mr->rkey}};
}

/* The rkey of an atomic is in wr.rdma, not in wr.atomic. */
static void other_member(void)
{
    struct ibv_sge sge = all_of(&one);
    sge.length = 8;
    struct ibv_send_wr request = write_of(&sge);
    request.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
    send_now(&request);
}

/* The elements of a WRITE before are still in the request of one without bytes. */
static void left_elements(void)
{
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr request = write_of(&sge);
    send_now(&request);
    request.num_sge = 0;
    send_now(&request);
}

/* The address of memory in a frame that has returned when it is used. */
static __attribute__((noinline)) void *in_frame(size_t size)
{
    char bytes[65536]; /* the end that the next calls do not reach */
    void *volatile start = memset(bytes, 0, size);
    return start;
}

static void dead_struct(void)
{
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *request = in_frame(512);
    *request = write_of(&sge);
    send_now(request);
}

static void dead_buffer(void)
{
    struct ibv_sge sge = all_of(&one);
    sge.addr = (uintptr_t)in_frame(512);
    struct ibv_send_wr request = write_of(&sge);
    send_now(&request);
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } mistakes[] = {{"other-member", other_member},
                    {"left-elements", left_elements},
                    {"dead-struct", dead_struct},
                    {"dead-buffer", dead_buffer}};
    for (size_t i = 0; count == 2 && i < sizeof mistakes / sizeof mistakes[0]; i++)
        if (strcmp(arguments[1], mistakes[i].name) == 0) {
            make_pair(&one, &other);
            mistakes[i].run();
            return destroy_pair(&one, &other);
        }
    fprintf(stderr, "usage: posts MISTAKE\n");
    return 1;
}
