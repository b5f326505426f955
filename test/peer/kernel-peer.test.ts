import { lacking } from '../system/programs.ts'
import { peerCase, peerSuite } from './cases.ts'
import { lackingGuest } from './guest.ts'

peerSuite('Linux 6.1, in short', lacking('ibv_rc_pingpong', 'ib_write_bw') || lackingGuest(), {
  4: [
    peerCase('ibv_rc_pingpong', '-n', '100', '-c'),
    peerCase('ib_write_bw', '-s', '65536', '-n', '20'),
    peerCase('ib_read_bw', '-s', '65536', '-n', '10'),
  ],
  6: [peerCase('ibv_rc_pingpong', '-s', '20000', '-n', '20', '-e', '-c')],
})
