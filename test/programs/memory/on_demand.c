/*
 * Regions with on-demand paging: each access uses the pages that are mapped then. The peers are queue pairs of this
 * program. Prints a line per step.
 *
 *   on_demand DEVICE           with a RLIMIT_MEMLOCK of LOCKED bytes
 */
#define _GNU_SOURCE
#include "../endpoint.h"
#include <sys/mman.h>
#include <sys/resource.h>

#define PAGE 4096
#define LOCKED (64 * PAGE)
#define LENGTH (4 * LOCKED)
#define RIGHTS                                                                                                         \
    (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |            \
     IBV_ACCESS_ON_DEMAND)

static struct ibv_context *context;
static struct endpoint one, other;

static uint8_t *map_at(void *address, size_t length)
{
    uint8_t *memory =
        mmap(address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (address ? MAP_FIXED : 0), -1, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

static const char *wait_for(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(cq, 1, &wc)) == 0)
        ;
    NEED(found > 0, "ibv_poll_cq: %d", found);
    return ibv_wc_status_str(wc.status);
}

static void connect_again(void)
{
    struct endpoint *const ends[] = {&one, &other};
    for (int i = 0; i < 2; i++) {
        NEED(ibv_destroy_qp(ends[i]->qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
        create_qp(ends[i]);
    }
    for (int i = 0; i < 2; i++) {
        const struct address peer = address_of(ends[1 - i]);
        connect_to(ends[i], &peer, &default_options);
    }
}

/* `one` makes a request of 8 bytes from `local`, of `other` to or from `remote`. */
static const char *request(enum ibv_wr_opcode opcode, const void *local, uint32_t lkey, const void *remote,
                           uint32_t rkey)
{
    struct ibv_sge sge = {(uintptr_t)local, 8, lkey};
    struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED}, *bad;
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        send.wr.atomic.remote_addr = (uintptr_t)remote;
        send.wr.atomic.rkey = rkey;
        send.wr.atomic.compare_add = 1;
    } else {
        send.wr.rdma.remote_addr = (uintptr_t)remote;
        send.wr.rdma.rkey = rkey;
    }
    NEED(ibv_post_send(one.qp, &send, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    const char *status = wait_for(one.cq);
    if (strcmp(status, "success") != 0)
        connect_again();
    return status;
}

static const char *advise(enum ibv_advise_mr_advice advice, uint32_t flags, const void *address, uint32_t length,
                          uint32_t lkey)
{
    struct ibv_sge sge = {(uintptr_t)address, length, lkey};
    const int error = ibv_advise_mr(other.pd, advice, flags, &sge, 1);
    return error == 0 ? "OK" : strerrorname_np(error);
}

static int resident_pages(void *memory)
{
    unsigned char pages[LENGTH / PAGE];
    int count = 0;
    NEED(mincore(memory, LENGTH, pages) == 0, "mincore: %s", strerror(errno));
    for (int i = 0; i < LENGTH / PAGE; i++)
        count += pages[i] & 1;
    return count;
}

static void accesses(void)
{
    uint64_t *const buffer = (uint64_t *)one.buffer, lkey = one.mr->lkey;
    uint8_t *memory = map_at(NULL, LENGTH), *last = memory + LENGTH - PAGE;
    struct ibv_mr *mr = ibv_reg_mr(other.pd, memory, LENGTH, RIGHTS);
    NEED(mr, "on demand: %s", strerror(errno));

    *buffer = 7;
    const char *status = request(IBV_WR_RDMA_WRITE, buffer, lkey, last, mr->rkey);
    printf("WRITE to a page that was never touched: %s, %d\n", status, *last);
    *buffer = 1;
    status = request(IBV_WR_RDMA_READ, buffer, lkey, memory, mr->rkey);
    printf("READ of another: %s, %d\n", status, (int)*buffer);
    status = request(IBV_WR_ATOMIC_FETCH_AND_ADD, buffer, lkey, last, mr->rkey);
    printf("atomic: %s, %d, then %d\n", status, (int)*buffer, *last);
    madvise(last, PAGE, MADV_DONTNEED);
    status = request(IBV_WR_RDMA_READ, buffer, lkey, last, mr->rkey);
    printf("READ after MADV_DONTNEED: %s, %d\n", status, (int)*buffer);
    munmap(last, PAGE);
    status = request(IBV_WR_RDMA_READ, buffer, lkey, last, mr->rkey);
    printf("READ after munmap: %s\n", status);
    *map_at(last, PAGE) = 9;
    status = request(IBV_WR_RDMA_READ, buffer, lkey, last, mr->rkey);
    printf("READ of the next mapping: %s, %d\n", status, (int)*buffer);
    mprotect(last, PAGE, PROT_READ);
    status = request(IBV_WR_RDMA_WRITE, buffer, lkey, last, mr->rkey);
    printf("WRITE after mprotect: %s\n", status);
    status = request(IBV_WR_RDMA_READ, buffer, lkey, memory + LENGTH, mr->rkey);
    printf("READ beyond the region: %s\n", status);
    uint8_t *moved = mremap(last, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map_at(NULL, PAGE));
    NEED(moved != MAP_FAILED, "mremap: %s", strerror(errno));
    status = request(IBV_WR_RDMA_READ, buffer, lkey, last, mr->rkey);
    printf("READ after mremap: %s\n", status);
}

/* A region of the whole address space. */
static void implicit(void)
{
    uint64_t on_stack = 5;
    static uint64_t in_data = 3;
    struct ibv_mr *mine = ibv_reg_mr(one.pd, NULL, SIZE_MAX, RIGHTS), *theirs = ibv_reg_mr(other.pd, NULL, SIZE_MAX, RIGHTS);
    NEED(mine && theirs, "implicit: %s", strerror(errno));
    const char *status = request(IBV_WR_RDMA_WRITE, &on_stack, mine->lkey, &in_data, theirs->rkey);
    printf("implicit, WRITE from the stack to data: %s, %d\n", status, (int)in_data);
    status = request(IBV_WR_RDMA_READ, &on_stack, mine->lkey, NULL, theirs->rkey);
    printf("implicit, READ of address 0: %s\n", status);
}

static void prefetches(void)
{
    uint8_t *memory = map_at(NULL, LENGTH);
    struct ibv_mr *mr = ibv_reg_mr(other.pd, memory, LENGTH, RIGHTS), *pinned = other.mr;
    struct ibv_mr *readable = ibv_reg_mr(other.pd, memory, LENGTH, IBV_ACCESS_ON_DEMAND);
    NEED(mr && readable, "on demand: %s", strerror(errno));
    printf("prefetch: %s", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, memory, LENGTH, mr->lkey));
    printf(", %d pages in memory\n", resident_pages(memory));
    printf("for writing: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 1, memory, LENGTH, mr->lkey));
    printf("without faults: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, 1, memory, LENGTH, mr->lkey));
    printf("later: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 0, memory, LENGTH, mr->lkey));
    printf("unknown advice: %s\n", advise(7, 1, memory, LENGTH, mr->lkey));
    printf("unknown flag: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 2, memory, LENGTH, mr->lkey));
    printf("beyond the region: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 1, memory, LENGTH + 1, mr->lkey));
    printf("beyond the region, later: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 0, memory, LENGTH + 1, mr->lkey));
    printf("a pinned region: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 1, other.buffer, 8, pinned->lkey));
    printf("for writing without the right: %s\n",
           advise(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 1, memory, LENGTH, readable->lkey));
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_mr *foreign = ibv_reg_mr(pd, memory, LENGTH, RIGHTS);
    struct ibv_mw *window = ibv_alloc_mw(other.pd, IBV_MW_TYPE_1);
    NEED(foreign && window, "keys: %s", strerror(errno));
    printf("of another domain: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 1, memory, LENGTH, foreign->lkey));
    printf("of a window: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 1, memory, LENGTH, window->rkey));
    const uint32_t key = foreign->lkey;
    ibv_dereg_mr(foreign);
    printf("an unknown key: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 1, memory, LENGTH, key));
    munmap(memory + PAGE, PAGE);
    printf("a range with a hole: %s\n", advise(IBV_ADVISE_MR_ADVICE_PREFETCH, 1, memory, LENGTH, mr->lkey));
}

int main(int argc, char **argv)
{
    NEED(argc == 2, "usage: on_demand DEVICE");
    const struct rlimit limit = {LOCKED, LOCKED};
    NEED(setrlimit(RLIMIT_MEMLOCK, &limit) == 0, "setrlimit: %s", strerror(errno));
    context = open_named(argv[1]);
    create_pair(&one, &other, context, &default_options);
    struct ibv_mr *pinned = ibv_reg_mr(other.pd, map_at(NULL, LENGTH), LENGTH, RIGHTS & ~IBV_ACCESS_ON_DEMAND);
    printf("pinned beyond the limit: %s\n", pinned ? "OK" : strerrorname_np(errno));
    accesses();
    implicit();
    prefetches();
    fflush(stdout);
    return system("rdma statistic show mr") == 0 ? 0 : 1;
}
