/* The buffer's pages come from a userfaultfd that no thread serves: the device waits for them. Needs root. */
#include "pair.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

int main(void)
{
    struct end one = {0}, other = {0};
    char *buffer = need(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
#ifndef FIXED
    const int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)buffer, .len = SIZE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    check(uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &range), "userfaultfd");
#endif
    make_pair(&one, &other);
    one.extra = need(ibv_reg_mr(one.pd, buffer, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    const struct ibv_sge sge = {.addr = (uintptr_t)buffer, .length = SIZE, .lkey = one.extra->lkey};
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey); /* FAULT */
    if (completion(&one) != IBV_WC_SUCCESS)
        return 0;
    return destroy_pair(&one, &other);
}
