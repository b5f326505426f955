/* The Debian packages of programs of RDMA. */

/** Programs by package; the first of each stands for all. */
export const programsOfPackages: Readonly<Record<string, readonly [string, ...string[]]>> = {
  'ibverbs-utils': [
    ...(['ibv_devinfo', 'ibv_devices', 'ibv_asyncwatch', 'ibv_rc_pingpong', 'ibv_uc_pingpong'] as const),
    ...(['ibv_ud_pingpong', 'ibv_srq_pingpong', 'ibv_xsrq_pingpong'] as const),
  ],
  perftest: [
    ...(['ib_write_bw', 'ib_write_lat', 'ib_read_bw', 'ib_read_lat', 'ib_send_bw', 'ib_send_lat'] as const),
    ...(['ib_atomic_bw', 'ib_atomic_lat'] as const),
  ],
  'rdmacm-utils': [
    ...(['rping', 'ucmatose', 'udaddy', 'mckey', 'rcopy', 'rdma_client', 'rdma_server', 'rdma_xclient'] as const),
    ...(['rdma_xserver', 'riostream', 'rstream', 'udpong', 'cmtime'] as const),
  ],
  iproute2: ['rdma'],
  'infiniband-diags': ['ibstat', 'ibstatus', 'ibping', 'perfquery', 'ibaddr', 'smpquery', 'vendstat'],
  qperf: ['qperf'],
}

/** How Debian gets a program: ` (Debian: apt-get install NAME)`; '' if no package is known. */
export const debianRemedy = (program: string): string => {
  const found = Object.keys(programsOfPackages).find(name => programsOfPackages[name]?.includes(program))
  return found === undefined ? '' : ` (Debian: apt-get install ${found})`
}
