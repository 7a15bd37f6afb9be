"""Which other words may a text use for what the question names?

Groups of words that manuals, policies and their readers use for the same thing, everyday words beside technical ones.
They are common words, of no document in particular; a group holds both languages, so that a question in one finds a
text in the other.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from math import sqrt

from serve_app.terms import terms

GROUPS = """
password passphrase passcode credential pin 密码 口令 凭据
username login account user 用户名 登录名 账号 帐号 账户 用户
administrator admin root superuser privileged 管理员 超级用户 特权
authenticate authentication authorize verify identity 认证 验证 鉴权 身份 授权
login logon signin connect 登录 登陆 登入 连接
logout logoff signout 注销 登出 退出
permission privilege access right allow permit 权限 许可 允许 准许
forbid deny prevent block prohibit restrict disallow 禁止 阻止 拒绝 屏蔽 限制
encrypt encryption cipher scramble 加密 密文
decrypt decryption unlock 解密 解锁
computer machine pc workstation laptop desktop host 电脑 计算机 机器 主机 笔记本
server host service daemon 服务器 服务 守护进程 后台
disk drive hdd ssd storage harddisk 硬盘 磁盘 存储 盘
usb stick thumbdrive flash removable 优盘 闪存 移动存储
memory ram 内存
processor cpu core 处理器
screen display monitor 屏幕 显示器 显示
keyboard key keystroke 键盘 按键
mouse pointer cursor 鼠标 光标 指针
printer print printing 打印机 打印
sound audio speaker noise volume 声音 音频 扬声器 音量
beep bell alarm 蜂鸣 铃声 提示音
camera webcam 摄像头 相机
battery power charge 电池 电源 电量 充电
cable wire plug 电缆 线缆 插头
phone mobile smartphone telephone cell 手机 电话
photo picture image photograph 照片 图片 图像 相片
video movie film clip 视频 影片 录像
music song 音乐 歌曲
file document 文件 文档
directory folder 目录 文件夹
archive compress zip pack compression 归档 压缩 打包
extract unpack decompress unzip 解压 解包 提取
copy duplicate clone 复制 拷贝 副本
backup save preserve 备份 保存 留存
restore recover recovery rescue retrieve undelete salvage 恢复 还原 找回 挽救 救援 抢救
delete remove erase wipe purge discard 删除 删掉 移除 清除 抹掉 擦除
destroy shred 销毁 粉碎
move relocate transfer migrate 移动 迁移 转移 搬
rename 改名 重命名
merge combine join concatenate unite 合并 拼接 组合
split divide separate cut 分割 拆分 切分 分开
find search locate seek look 查找 搜索 寻找 检索 定位
list show display view print 列出 显示 查看 列表
compare difference differ diff 比较 对比 差异 区别 不同
change modify edit alter adjust 修改 更改 改变 编辑 调整 改动
replace substitute swap exchange 替换 取代 更换 置换
create make build generate produce 创建 建立 制作 生成 新建
add append insert attach 添加 增加 追加 插入 附加
set configure setting option preference setup configuration 设置 配置 设定 选项 首选项
default standard preset 默认 缺省 预设
install setup deploy 安装 部署 装上
uninstall deinstall 卸载
update upgrade refresh newer 更新 升级
downgrade rollback revert undo older 降级 回滚 回退 撤销 还原
version release edition 版本 发行版 版
package software program application app 软件包 软件 程序 应用
download fetch obtain 下载 获取 取得
upload send submit 上传 发送 提交
start launch run begin execute boot open 启动 运行 开始 执行 打开 开启
boot bootup startup reboot restart 引导 启动 开机 重启
stop end quit exit terminate halt kill abort close 停止 结束 退出 终止 关闭 中止
shutdown poweroff halt 关机 关闭
enable activate 启用 激活 开启 打开
disable deactivate mute silence 禁用 停用 关闭 关掉 静音
schedule cron timer periodic regularly recurring daily nightly automatically 定时 定期 计划 周期 自动 每天 每日
later delay postpone defer 延迟 推迟 稍后
repeat loop iterate 重复 循环 反复
time clock hour 时间 时钟 钟
date day calendar 日期 日子 日历
timezone utc 时区
speed fast performance quick throughput 速度 性能 快
slow lag sluggish 慢 卡顿 迟缓
limit maximum bound quota restrict throttle 限制 上限 配额 最大 限额
bandwidth traffic 带宽 流量 网速
size length large big 大小 长度 尺寸
space room capacity usage full 空间 容量 用量 占用
consume use occupy waste 消耗 占用 耗费
error fault failure problem trouble issue bug 错误 故障 问题 毛病 失败 缺陷
fail die crash break hang freeze 崩溃 失败 损坏 死机 卡死 坏
broken damaged corrupt faulty defective 损坏 破损 坏了 坏掉
fix repair mend solve resolve troubleshoot 修复 修理 解决 排查 排除 维修
test check verify inspect examine validate 测试 检查 检验 验证 核对 校验 检测
debug trace diagnose 调试 跟踪 诊断 排错
monitor watch observe track 监控 监视 观察 追踪
log record journal history 日志 记录 历史
warning notice alert notification 警告 通知 提醒 告警 警报
predict forecast foresee 预测 预报 预警
message announce broadcast notify inform 消息 信息 通知 广播 告知
mail email message 邮件 电邮 邮箱
network internet lan web online 网络 互联网 局域网 上网 联网
wireless wifi wlan 无线
address ip 地址
website site page web 网站 网页 站点
browser firefox chrome 浏览器
remote distant afar ssh 远程 远端 异地
local nearby 本地 本机
firewall filter 防火墙 过滤
proxy gateway 代理 网关
port socket 端口 套接字
share shared sharing 共享 分享
synchronize sync mirror rsync 同步 镜像
graphical gui window desktop 图形 界面 窗口 桌面 图形界面
terminal console shell prompt 终端 控制台 命令行 提示符
command instruction 命令 指令
script macro automate 脚本 宏 自动化
editor edit 编辑器
text plain 文本 文字 纯文本
character letter glyph symbol 字符 字母 文字 符号
encoding charset unicode utf garbled garbage mojibake 编码 字符集 乱码
newline linefeed eol 换行 换行符 行尾
font typeface 字体 字型
language locale translation localization 语言 语言环境 翻译 本地化 区域
convert transform conversion change 转换 转化 变换 转成
format layout 格式 版式
pdf postscript ps
table spreadsheet 表格 电子表格
clipboard paste cut 剪贴板 粘贴 剪切
hide hidden invisible conceal 隐藏 看不见 不可见
temporary tmp transient 临时 暂时
permanent persistent 永久 持久
empty blank clear clean 清空 空白 清理 干净
suspend pause 暂停 挂起
resume continue reattach proceed 继续 恢复 接着
disconnect detach unplug interrupt 断开 中断 分离 掉线
mount attach 挂载
unmount eject 卸载 弹出
partition volume 分区 卷
kernel core 内核
driver firmware module 驱动 固件 模块
library dependency 库 依赖
compile build 编译 构建
source code program 源代码 源码 代码
process task job 进程 任务 作业
leak leakage 泄漏 泄露
variable environment 变量 环境
alias shortcut abbreviation 别名 快捷方式 缩写
link symlink reference 链接 引用
owner ownership 所有者 拥有者 属主
group team 组 群组 团队
everyone everybody 所有人 大家 每个人
help manual documentation guide instruction howto 帮助 手册 文档 指南 说明书 教程
virtual virtualization vm emulator 虚拟 虚拟机 虚拟化 模拟器
container sandbox isolate chroot 容器 沙盒 沙箱 隔离
security safe secure safety protect 安全 保护 防护
attack intrusion hacker 攻击 入侵 黑客
virus malware 病毒 恶意软件
certificate key signature sign 证书 密钥 签名 公钥
repository archive mirror 仓库 档案库 软件源
commit revision 提交 修订
branch fork 分支
database db 数据库
query question ask 查询 询问
input type enter 输入 键入 敲
output result 输出 结果
random arbitrary 随机
old obsolete legacy deprecated outdated previous former 旧 过时 废弃 老 以前 陈旧
new recent latest fresh 新 最新 新版
free libre gratis 自由 免费
license licence copyright 许可证 版权 授权
price cost fee charge 价格 费用 价钱 收费
buy purchase order 购买 订购 买
pay payment 付款 支付 付钱
refund return 退款 退货 退钱
deliver delivery ship shipping 送货 配送 发货 快递
cancel revoke withdraw 取消 撤回
invoice receipt bill 发票 收据 账单
contract agreement terms 合同 协议 条款
employee staff worker 员工 职员 雇员
manager boss supervisor 经理 主管 上司
vacation holiday leave 休假 假期 年假
salary wage pay 工资 薪水 薪资
customer client buyer 客户 顾客 买家
support service helpdesk 支持 客服 服务
complaint complain 投诉 抱怨
warranty guarantee 保修 质保 保证
appointment meeting reservation 预约 会议 预订
doctor physician 医生 大夫
child kid 儿童 孩子 小孩
car vehicle automobile 汽车 车辆 车
house home building 房屋 住宅 房子
temperature heat hot 温度 热
water moisture wet 水 潮湿
light lamp 灯 灯光
hand manual manually 手动 手工
"""


SAME_LANGUAGE = 0.7
OTHER_LANGUAGE = 0.3
"""How much a group's other words count beside the one in the question."""


@dataclass(frozen=True, slots=True)
class Synonyms:
    """A word of the question, and how much each of the other terms for it counts."""

    terms: list[str]
    others: dict[str, float]


def synonyms(question: str) -> list[Synonyms]:
    """The words of `question` that have synonyms."""
    groups, chinese = _groups()
    text = unicodedata.normalize("NFKC", question)
    words = [*dict.fromkeys([*terms(text), *chinese.findall(text)])]
    return [Synonyms(_spelled(word), groups[word]) for word in words if word in groups]


@cache
def _groups() -> tuple[dict[str, dict[str, float]], re.Pattern[str]]:
    """From a stem or a Chinese word to the other terms of its groups; and what recognizes the Chinese words."""
    found: dict[str, dict[str, float]] = {}
    for group in GROUPS.strip().splitlines():
        words = group.split()
        for word in words:
            others = found.setdefault(word if not word.isascii() else _spelled(word)[0], {})
            for other in words:
                strength = SAME_LANGUAGE if word.isascii() == other.isascii() else OTHER_LANGUAGE
                spelled = _spelled(other)
                for term in spelled:
                    others[term] = max(others.get(term, 0.0), strength / sqrt(len(spelled)))
    chinese = sorted((word for word in found if not word.isascii()), key=len, reverse=True)
    return found, re.compile("|".join(chinese))


def _spelled(word: str) -> list[str]:
    """The terms that stand for a word: of a Chinese one its pairs, which tell more than its characters."""
    spelled = terms(word)
    return [term for term in spelled if len(term) > 1] or spelled
