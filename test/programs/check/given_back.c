/*
 * Memory that its program gives back while a region of it lives, and that a device accesses afterwards, for
 * `userdma check` (test/system/check/given-back.test.ts): `given_back HOW/ACCESS...` runs each pair in a process of its
 * own, whose name is HOW/ACCESS.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../../../docs/findings/pair.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>

#define PAGE 4096
/* Bytes of a block that free() unmaps. */
#define LARGE (4 << 20)
#define ALWAYS_INLINE inline __attribute__((always_inline))

static struct end one, other;
/* The memory that is given back, its region, and how the program gives it back. */
static char *memory;
static struct ibv_mr *region;

/* ---- accesses ---- */

static struct ibv_sge given(void)
{
    return (struct ibv_sge){.addr = (uintptr_t)memory, .length = 64, .lkey = region->lkey};
}

static struct ibv_sge kept(struct end *end)
{
    return (struct ibv_sge){.addr = (uintptr_t)end->buffer, .length = 64, .lkey = end->mr->lkey};
}

static void nothing(void)
{
}

static void receive_given(void)
{
    post_receive(&other, given());
}

static void send_kept(void)
{
    post(&one, IBV_WR_SEND, kept(&one), 0, 0);
}

static void send_given(void)
{
    post_receive(&one, kept(&one));
    post(&other, IBV_WR_SEND, given(), 0, 0);
}

static void receive_and_send(void)
{
    receive_given();
    send_kept();
}

static void peer(enum ibv_wr_opcode opcode, uint32_t length)
{
    struct ibv_sge sge = kept(&one);
    sge.length = length;
    post(&one, opcode, sge, (uintptr_t)memory, region->rkey);
}

static void peer_reads(void)
{
    peer(IBV_WR_RDMA_READ, 64);
}

static void peer_writes(void)
{
    peer(IBV_WR_RDMA_WRITE, 64);
}

static void peer_adds(void)
{
    peer(IBV_WR_ATOMIC_FETCH_AND_ADD, 8);
}

static const struct access {
    const char *name;
    void (*before)(void), (*after)(void);
} accesses[] = {
    {"send", nothing, send_given},        {"receive", nothing, receive_and_send},
    {"posted", receive_given, send_kept}, {"peer-read", nothing, peer_reads},
    {"peer-write", nothing, peer_writes}, {"peer-atomic", nothing, peer_adds},
};

static const struct access *chosen;

static ALWAYS_INLINE void use(char *block, size_t bytes)
{
    memory = block;
    memset(memory, 1, bytes);
    region = need(ibv_reg_mr(other.pd, memory, bytes, ALL_RIGHTS), "ibv_reg_mr");
    chosen->before();
}

/* ---- how it is given back ---- */

static void by_free(void)
{
    char *block = need(malloc(1000), "malloc");
    use(block, 1000);
    free(block);
}

static void by_realloc(void)
{
    char *block = need(malloc(1000), "malloc"), *wall = need(malloc(1000), "malloc");
    use(block, 1000);
    block = need(realloc(block, 100000), "realloc");
    free(block);
    free(wall);
}

static char *mapped(size_t bytes)
{
    return need(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
}

static void by_large_free(void)
{
    char *block = need(malloc(LARGE), "malloc");
    use(block, LARGE);
    free(block);
}

static void by_munmap(void)
{
    use(mapped(PAGE), PAGE);
    check(munmap(memory, PAGE), "munmap");
}

static void by_mremap(void)
{
    char *target = mapped(4 * PAGE);
    use(mapped(PAGE), PAGE);
    need(mremap(memory, PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target), "mremap");
}

static void by_madvise(void)
{
    use(mapped(PAGE), PAGE);
    check(madvise(memory, PAGE, MADV_DONTNEED), "madvise");
}

static __attribute__((noinline)) void in_frame(void)
{
    char local[1024];
    use(local, sizeof local);
}

static void by_return(void)
{
    in_frame();
}

static void *in_thread(void *unused)
{
    char local[1024];
    use(local, sizeof local);
    return unused;
}

static void by_thread(void)
{
    pthread_t thread;
    check(pthread_create(&thread, NULL, in_thread, NULL), "pthread_create");
    check(pthread_join(thread, NULL), "pthread_join");
}

static void by_sbrk(void)
{
    use(need(sbrk(2 * PAGE), "sbrk"), 2 * PAGE);
    need(sbrk(-2 * PAGE), "sbrk");
}

static void by_brk(void)
{
    char *end = sbrk(0);
    check(brk(end + 2 * PAGE), "brk");
    use(end, 2 * PAGE);
    check(brk(end), "brk");
}

static const struct way {
    const char *name;
    void (*run)(void);
} ways[] = {
    {"free", by_free},       {"large", by_large_free}, {"realloc", by_realloc}, {"munmap", by_munmap},
    {"mremap", by_mremap},   {"madvise", by_madvise},       {"return", by_return},   {"thread", by_thread},
    {"sbrk", by_sbrk},       {"brk", by_brk},
};

static const struct way *way_of(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strlen(ways[i].name) == length && strncmp(ways[i].name, name, length) == 0)
            return &ways[i];
    return NULL;
}

static const struct access *access_of(const char *name)
{
    for (size_t i = 0; i < sizeof accesses / sizeof *accesses; i++)
        if (strcmp(accesses[i].name, name) == 0)
            return &accesses[i];
    return NULL;
}

/* The completions of a request and of its receive, or a failure. */
static void finish(void)
{
    struct ibv_wc wc;
    bool has_failed = false;
    for (int done = 0, tries = 0; tries < 200 && !has_failed && done < 2; tries++) {
        for (int i = 0; i < 2; i++)
            if (ibv_poll_cq(i ? other.cq : one.cq, 1, &wc) > 0) {
                done++;
                has_failed |= wc.status != IBV_WC_SUCCESS;
                if (wc.status != IBV_WC_SUCCESS)
                    fprintf(stderr, "%s\n", ibv_wc_status_str(wc.status));
            }
        usleep(1000);
    }
}

int main(int argc, char **argv)
{
    const char *slash = argc > 1 ? strchr(argv[1], '/') : NULL;
    if (!slash || argc > 2 || !way_of(argv[1], (size_t)(slash - argv[1])) || !access_of(slash + 1))
        return fprintf(stderr, "usage: given_back HOW/ACCESS\n"), 1;
    chosen = access_of(slash + 1);
    prctl(PR_SET_NAME, argv[1]);
    make_pair(&one, &other);
    way_of(argv[1], (size_t)(slash - argv[1]))->run();
    chosen->after();
    finish();
    other.extra = region;
    return destroy_pair(&one, &other);
}
