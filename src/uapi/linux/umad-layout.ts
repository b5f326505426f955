/*
 * Linux's calls on a umad file (ib_user_mad.h): ioctls, sizes of structs and offsets of fields. Little-endian except
 * where noted.
 */

/** _IOC with RDMA_IOCTL_MAGIC, 0x1b. Bits of `direction`: 1 write, 2 read. */
const ioc = (direction: number, number: number, size: number): number =>
  ((direction << 30) | (size << 16) | (0x1b << 8) | number) >>> 0

/** struct ib_user_mad_reg_req. */
export const RegisterAgent = {
  bytes: 28,
  id: 0,
  /** 16 bytes: a bit for each of the 128 methods. */
  methods: 4,
  qpn: 20,
  mgmtClass: 21,
  classVersion: 22,
  /** 3 bytes, big-endian. */
  oui: 23,
  rmppVersion: 26,
} as const

/** struct ib_user_mad_reg_req2. */
export const RegisterAgent2 = {
  bytes: 40,
  id: 0,
  qpn: 4,
  mgmtClass: 8,
  classVersion: 9,
  flags: 12,
  /** As in `RegisterAgent`. */
  methods: 16,
  /** 4 bytes, little-endian. */
  oui: 32,
  rmppVersion: 36,
} as const

export const UmadIoctl = {
  REGISTER_AGENT: ioc(3, 1, RegisterAgent.bytes),
  UNREGISTER_AGENT: ioc(1, 2, 4),
  ENABLE_PKEY: ioc(0, 3, 0),
  REGISTER_AGENT2: ioc(3, 4, RegisterAgent2.bytes),
} as const

/**
 * struct ib_user_mad_hdr. A file's headers have only `bytesWithoutPkey` bytes until ENABLE_PKEY, or until
 * REGISTER_AGENT2 creates the file's first agent.
 */
export const UmadHeader = {
  bytes: 64,
  bytesWithoutPkey: 56,
  id: 0,
  status: 4,
  /** Milliseconds. */
  timeout: 8,
  retries: 12,
  length: 16,
  /** Big-endian. */
  qpn: 20,
  /** Big-endian. */
  lid: 28,
  sl: 30,
  pathBits: 31,
  grhPresent: 32,
  gidIndex: 33,
  hopLimit: 34,
  trafficClass: 35,
  gid: 36,
  /** Big-endian. */
  flowLabel: 52,
  pkeyIndex: 56,
} as const

/** The calls on a umad file, for docs/reference. */
export const umadCalls: readonly { readonly call: string; readonly method?: string; readonly remark: string }[] = [
  { call: 'open(2) of umadN', method: 'mad_channel.create', remark: "EACCES for other users than the daemon's" },
  {
    call: 'open(2) of issmN',
    method: 'mad_channel.create',
    remark: 'only InfiniBand ports have the node; IsSM until it is closed; EAGAIN while another program has it open',
  },
  { call: 'IB_USER_MAD_REGISTER_AGENT', method: 'mad_agent.create', remark: 'does not add a P_Key index to headers' },
  {
    call: 'IB_USER_MAD_REGISTER_AGENT2',
    method: 'mad_agent.create',
    remark:
      'if it creates the first agent: headers have a P_Key index; unknown flags: EINVAL, and the known flags are returned',
  },
  { call: 'IB_USER_MAD_UNREGISTER_AGENT', method: 'mad_agent.destroy', remark: '' },
  { call: 'IB_USER_MAD_ENABLE_PKEY', remark: 'headers have a P_Key index; EINVAL after the first agent' },
  { call: 'write(2)', method: 'mad_agent.send', remark: 'a header and a message of up to 1 MiB' },
  {
    call: 'read(2)',
    method: 'mad_channel.receive',
    remark: 'if the buffer is too short for the message: its first datagram, and ENOSPC',
  },
  { call: 'poll(2)', remark: 'readable while a message waits, always writable' },
]
