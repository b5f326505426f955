/*
 * Names of what captures have beside RoCE: EtherTypes, IP protocols and UDP ports (IANA's registries), as far as
 * networks with RDMA have them.
 */

export const etherTypeNames: ReadonlyMap<number, string> = new Map([
  [0x0842, 'Wake-on-LAN'],
  [0x8808, 'pause or PFC'],
  [0x8809, 'LACP'],
  [0x8847, 'MPLS'],
  [0x8848, 'MPLS'],
  [0x8863, 'PPPoE'],
  [0x8864, 'PPPoE'],
  [0x888e, '802.1X'],
  [0x88cc, 'LLDP'],
  [0x88e5, 'MACsec'],
  [0x88f7, 'PTP'],
  [0x8906, 'FCoE'],
  [0x894f, 'NSH'],
])

export const ipProtocolNames: ReadonlyMap<number, string> = new Map([
  [2, 'IGMP'],
  [4, 'IPIP'],
  [41, 'IPv6 in IP'],
  [47, 'GRE'],
  [50, 'ESP'],
  [51, 'AH'],
  [88, 'EIGRP'],
  [89, 'OSPF'],
  [103, 'PIM'],
  [112, 'VRRP'],
  [115, 'L2TP'],
  [132, 'SCTP'],
  [136, 'UDP-Lite'],
  [137, 'MPLS'],
])

export const udpPortNames: ReadonlyMap<number, string> = new Map([
  [53, 'DNS'],
  [67, 'DHCP'],
  [68, 'DHCP'],
  [123, 'NTP'],
  [161, 'SNMP'],
  [319, 'PTP'],
  [320, 'PTP'],
  [443, 'QUIC'],
  [500, 'IKE'],
  [514, 'syslog'],
  [546, 'DHCPv6'],
  [547, 'DHCPv6'],
  [2152, 'GTP-U'],
  [3784, 'BFD'],
  [4500, 'IPsec'],
  [4789, 'VXLAN'],
  [4790, 'VXLAN-GPE'],
  [5353, 'mDNS'],
  [6081, 'GENEVE'],
  [6343, 'sFlow'],
  [6635, 'MPLS'],
  [8472, 'VXLAN'],
])
