import { lacking } from '../system/programs.ts'
import { peerCase, peerSuite } from './cases.ts'
import { lackingGuest } from './guest.ts'

const cases = [
  peerCase('ibv_rc_pingpong', '-n', '500', '-c'),
  peerCase('ibv_rc_pingpong', '-n', '200', '-c', '-e', '-s', '1', '-m', '256'),
  peerCase('ibv_rc_pingpong', '-n', '100', '-c', '-s', '65536', '-m', '512'),
  peerCase('ib_write_bw', '-s', '65536', '-n', '50'),
  peerCase('ib_write_bw', '-s', '1000', '-n', '100', '-q', '4', '-b'),
  peerCase('ib_read_bw', '-s', '65536', '-n', '50'),
  peerCase('ib_read_bw', '-s', '300000', '-n', '10', '-b'),
  peerCase('ib_send_bw', '-s', '65536', '-n', '50'),
  peerCase('ib_send_bw', '-s', '3000', '-n', '100', '-e'),
  peerCase('ib_atomic_bw', '-n', '100', '-A', 'FETCH_AND_ADD'),
  peerCase('ib_atomic_bw', '-n', '100', '-A', 'CMP_AND_SWAP'),
  peerCase('ib_write_lat', '-s', '64', '-n', '100'),
  peerCase('ib_send_lat', '-s', '2000', '-n', '100'),
  peerCase('ib_read_lat', '-s', '2000', '-n', '100'),
]

peerSuite('Linux 6.1', lacking('ibv_rc_pingpong', 'ib_write_bw') || lackingGuest(), { 4: cases, 6: cases })
