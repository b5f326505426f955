/*
 * Unmaps registered memory: `unmaps CASE`. In the last case a child of fork unmaps its own copy, and no registered
 * memory of the parent.
 */
#define _GNU_SOURCE
#include "../../../docs/findings/pair.h"

#define LENGTH 4194304

static void *map(void)
{
    return need(mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
}

static struct ibv_mr *reg(struct ibv_pd *pd, void *memory)
{
    return need(ibv_reg_mr(pd, memory, LENGTH, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
}

static void by_munmap(struct ibv_pd *pd)
{
    char *memory = map();
    struct ibv_mr *mr = reg(pd, memory);
    check(munmap(memory + SIZE, SIZE), "munmap");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void by_mremap(struct ibv_pd *pd)
{
    void *memory = map();
    struct ibv_mr *mr = reg(pd, memory);
    check(mremap(memory, LENGTH, SIZE, 0) == MAP_FAILED, "mremap");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void by_fixed(struct ibv_pd *pd)
{
    void *memory = map();
    struct ibv_mr *mr = reg(pd, memory);
    need(mmap(memory, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), "mmap");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void by_free(struct ibv_pd *pd)
{
    void *memory = need(malloc(LENGTH), "malloc");
    struct ibv_mr *mr = reg(pd, memory);
    free(memory);
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void by_realloc(struct ibv_pd *pd)
{
    void *memory = need(malloc(LENGTH), "malloc");
    struct ibv_mr *mr = reg(pd, memory);
    memory = need(realloc(memory, SIZE), "realloc");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    free(memory);
}

static void by_child(struct ibv_pd *pd)
{
    void *memory = map();
    struct ibv_mr *mr = reg(pd, memory);
    const pid_t child = fork();
    if (child == 0)
        _exit(munmap(memory, LENGTH));
    int status;
    check(waitpid(child, &status, 0) != child || status != 0, "waitpid");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct ibv_pd *);
    } cases[] = {{"munmap", by_munmap}, {"mremap", by_mremap}, {"fixed", by_fixed},
                 {"free", by_free},     {"realloc", by_realloc}, {"child", by_child}};
    for (unsigned i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            struct end one = {0};
            open_device();
            make_end(&one);
            cases[i].run(one.pd);
            destroy_end(&one);
            check(ibv_close_device(context), "ibv_close_device");
            return 0;
        }
    fprintf(stderr, "usage: unmaps CASE\n");
    return 1;
}
