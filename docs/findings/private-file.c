/* The server offers a file as memory to its peer, and maps it for itself alone. */
#include "pair.h"

#include <fcntl.h>

int main(void)
{
    struct end one = {0}, other = {0};
    char name[] = "/tmp/userdma-private-XXXXXX";
    const int file = mkstemp(name);
    check(file < 0 || unlink(name) != 0 || ftruncate(file, SIZE) != 0, "mkstemp");
    make_pair(&one, &other);
    char *mapped = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, FAULT_OR(MAP_PRIVATE, MAP_SHARED), file, 0);
    check(mapped == MAP_FAILED, "mmap");
    other.extra = need(ibv_reg_mr(other.pd, mapped, SIZE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE), /* FAULT */
                       "ibv_reg_mr");
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), (uintptr_t)mapped, other.extra->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
