/* Holds the offsets and numbers of src/macos/procinfo.rs and libproc.rs to the system's own headers. */
#include <libproc.h>
#include <stddef.h>
#include <sys/proc_info.h>
#include <sys/sysctl.h>

#define SAME(what, value) _Static_assert((what) == (value), #what)
#define AT(type, field, value) SAME(offsetof(type, field), value)

AT(struct proc_fdinfo, proc_fd, 0);
AT(struct proc_fdinfo, proc_fdtype, 4);
SAME(sizeof(struct proc_fdinfo), 8);
AT(struct socket_fdinfo, psi.soi_kind, 256);
AT(struct socket_fdinfo, psi.soi_proto.pri_tcp.tcpsi_ini.insi_fport, 264);
AT(struct socket_fdinfo, psi.soi_proto.pri_tcp.tcpsi_ini.insi_lport, 268);
AT(struct socket_fdinfo, psi.soi_proto.pri_tcp.tcpsi_ini.insi_vflag, 288);
AT(struct socket_fdinfo, psi.soi_proto.pri_tcp.tcpsi_ini.insi_faddr, 296);
AT(struct socket_fdinfo, psi.soi_proto.pri_tcp.tcpsi_ini.insi_laddr, 312);
AT(struct in4in6_addr, i46a_addr4, 12);
SAME(sizeof(struct socket_fdinfo), 792);
AT(struct proc_bsdinfo, pbi_flags, 0);
AT(struct proc_bsdinfo, pbi_ppid, 16);
AT(struct proc_bsdinfo, pbi_start_tvsec, 120);
AT(struct proc_bsdinfo, pbi_start_tvusec, 128);
SAME(sizeof(struct proc_bsdinfo), 136);
AT(struct proc_vnodepathinfo, pvi_cdir.vip_path, 152);
SAME(sizeof(((struct proc_vnodepathinfo *)0)->pvi_cdir.vip_path), 1024);
SAME(sizeof(struct proc_vnodepathinfo), 2352);
SAME(PROC_FLAG_EXEC, 0x4000);
SAME(PROX_FDTYPE_SOCKET, 2);
SAME(SOCKINFO_TCP, 2);
SAME(INI_IPV4, 1);
SAME(PROC_PIDLISTFDS, 1);
SAME(PROC_PIDTBSDINFO, 3);
SAME(PROC_PIDVNODEPATHINFO, 9);
SAME(PROC_PIDFDSOCKETINFO, 3);
SAME(CTL_KERN, 1);
SAME(KERN_PROCARGS2, 49);
