/*
 * The row of the finding refused-call.
 */

export const refusedCall = {
  severity: 'warning',
  needs: ['call'],
  title: 'a call was refused for its arguments',
  why: 'The call returns an error and has no effect. The finding has the reason, if known, also if libibverbs, its provider or librdmacm refuse the call themselves, without a call of the kernel (from reading rdma-core 44 and 64). The finding is a note if the device or provider lacks what was requested (EOPNOTSUPP), and if only max_inline_data is too large: no call returns its limit, so programs try several values. A registration beyond RLIMIT_MEMLOCK is reported too, with the limit and what is registered. A refused call of rdma_cm is reported when its identifier is destroyed: as an error if the identifier needs the call to connect and the call never succeeded, else as a note. The header of rdma_cm takes 36 bytes of the private data of a request: 56 are left with RDMA_PS_TCP, 180 with RDMA_PS_UDP.',
} as const
