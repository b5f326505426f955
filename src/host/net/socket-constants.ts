/*
 * Linux's constants for sockets.
 */
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const NETLINK_ROUTE = 0
export const SOL_SOCKET = 1
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const MSG_TRUNC = 0x20
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000
