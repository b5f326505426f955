/*
 * Two connected queue pairs of one device. Lends 4 KiB buffers of a pool (userdma.h), and then, of random buffers,
 *
 *   lends write LENDS COUNT     WRITEs 64 bytes to each
 *   lends tell LENDS COUNT      tells the peer of each by a SEND, and the peer READs it
 *
 * Prints the microseconds of each.
 */
#include "../../docs/findings/pair.h"

#include <time.h>
#include <userdma.h>

#define BUFFERS 10000
#define DEPTH 8

struct told {
    uint64_t address;
    uint32_t rkey, length;
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int reap(struct end *end, int most)
{
    struct ibv_wc wc[DEPTH];
    const int found = ibv_poll_cq(end->cq, most, wc);

    for (int i = 0; i < found; i++)
        if (wc[i].status != IBV_WC_SUCCESS) {
            fprintf(stderr, "completion: %s\n", ibv_wc_status_str(wc[i].status));
            exit(1);
        }
    return found;
}

static void wait_for(struct end *end)
{
    while (reap(end, 1) == 0)
        ;
}

static uint64_t buffer_of(const struct ibv_mr *pool, unsigned *random)
{
    *random = *random * 1103515245 + 12345;
    return (uintptr_t)pool->addr + (uint64_t)((*random >> 8) % BUFFERS) * SIZE;
}

static void write_all(struct end *from, const struct ibv_mr *pool, long count)
{
    const struct ibv_sge sge = {.addr = (uintptr_t)from->buffer, .length = 64, .lkey = from->mr->lkey};
    unsigned random = 1;

    for (long posted = 0, done = 0; done < count;) {
        for (; posted < count && posted - done < DEPTH; posted++)
            post(from, IBV_WR_RDMA_WRITE, sge, buffer_of(pool, &random), pool->rkey);
        done += reap(from, DEPTH);
    }
}

static void tell_all(struct end *reader, struct end *owner, const struct ibv_mr *pool, long count)
{
    struct told *told = (struct told *)owner->buffer;
    unsigned random = 1;

    for (long i = 0; i < count; i++) {
        *told = (struct told){buffer_of(pool, &random), pool->rkey, SIZE};
        post_receive(reader, (struct ibv_sge){(uintptr_t)reader->buffer, 64, reader->mr->lkey});
        post(owner, IBV_WR_SEND, (struct ibv_sge){(uintptr_t)told, sizeof *told, owner->mr->lkey}, 0, 0);
        wait_for(owner);
        wait_for(reader);
        post(reader, IBV_WR_RDMA_READ, all_of(reader), told->address, pool->rkey);
        wait_for(reader);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s write|tell LENDS COUNT\n", argv[0]);
        return 2;
    }
    const long lends = atol(argv[2]), count = atol(argv[3]);
    struct end peer = {0}, owner = {0};

    make_pair(&peer, &owner);
    char *memory = need(mmap(NULL, (size_t)BUFFERS * SIZE, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0),
                        "mmap");
    owner.extra = need(ibv_reg_mr(owner.pd, memory, (size_t)BUFFERS * SIZE, ALL_RIGHTS), "ibv_reg_mr");
    for (long i = 0; i < lends; i++)
        userdma_lend(memory + i * SIZE, SIZE, USERDMA_READ | USERDMA_WRITE, "");

    const double start = now();

    if (strcmp(argv[1], "tell") == 0)
        tell_all(&peer, &owner, owner.extra, count);
    else
        write_all(&peer, owner.extra, count);
    printf("%.3f\n", (now() - start) * 1e6 / (double)count);
    return destroy_pair(&peer, &owner);
}
