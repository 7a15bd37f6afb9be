"""Which words mean the same across English and Chinese, and which carry no content?

A question in one language meets a tool described in the other through these groups. They are common words of business
software, not names of tools.
"""

from __future__ import annotations

SYNONYMS = """
order orders purchase 订单 订购 下单
ship shipped shipping shipment dispatch dispatched deliver delivered delivery arrive arrived arrives track tracking \
transit 发货 发出 寄出 配送 派送 送达 送到 物流 快递 运输 到货 签收 收到 到哪 到了 运到
pay paid payment 付款 支付 已付 付了 付钱
refund refunded reimbursement 退款 退钱
parcel parcels courier 包裹 快件 快递单 运单
invoice receipt bill 发票 收据 账单
status state progress 状态 进度 进展
weather forecast temperature rain raining rainy snow snowing sunny windy cold hot warm freezing \
天气 气温 温度 下雨 下雪 预报 冷吗 热吗 多少度 几度
time clock o'clock hour 时间 几点 时刻 钟点
date day today 日期 几号 今天 星期几 周几
currency exchange rate 货币 汇率 外汇 币种
convert conversion 换算 兑换 转换 换成 兑成
price cost fee charge 价格 价钱 多少钱 费用 收费
stock stocks share shares quote 股票 股价 行情
inventory availability available left remaining 库存 有货 存货 还剩 剩下
room rooms meeting 房间 会议室 会议
book booking reserve reservation 预订 预定 订房 订一间 预约
flight flights plane 航班 飞机 班机
train trains railway 火车 高铁 列车
ticket tickets issue case 工单 票据 车票 机票
user account profile 用户 账户 账号 帐号
customer client 客户 顾客
employee staff colleague 员工 职员 同事
product item goods sku 商品 产品 货品
email mail e-mail 邮件 邮箱 电邮
phone telephone mobile 电话 手机
address location place 地址 地点 位置
city town 城市 都市
country nation 国家
translate translation 翻译 译成
calculate compute calculation 计算 算一下 求值
balance 余额
leave vacation holiday 请假 年假 假期 休假
salary wage payroll 工资 薪水 薪资
cancel cancellation 取消 撤销
news headline 新闻 头条
coupon discount voucher 优惠券 折扣 优惠
"""

CURRENCIES = """
usd dollar dollars 美元 美金
eur euro euros 欧元
cny rmb yuan renminbi 人民币
jpy yen 日元 日圆
gbp pound pounds sterling 英镑
hkd 港币 港元
krw won 韩元
chf franc francs 瑞士法郎 瑞郎
"""
"""An enum of ISO codes is named in words more often than by its values."""

REQUEST_WORDS = """
please tell show give want wanna know check look find help need get got let see say try like would could can will
shall should may might must query lookup search now currently right yet already still just also then too ok okay hi
hello hey thanks thank question wonder wondering ask asking today tonight tomorrow much many any some thing anything
something again soon really actually kindly quick quickly up out going go happen happened make sure about current
latest exactly anyway well one ones what's it's i'm i'd i've there's let's who's where's how's hasn't isn't doesn't
didn't won't don't can't haven't wasn't aren't
repeat rid way able expect expected possible trying
"""
"""English words that ask rather than say what about, beyond the stop words of `terms`."""

REQUEST_PHRASES = """
请问一下 再查一次 再看一次 一次 再次 重新
请问 请帮我 请帮 请告诉我 帮我查一下 帮我查 帮我看看 帮我 帮忙 麻烦你 麻烦您 麻烦 查一下 查一查 查查 查下
查看 查询 查找 搜索 检索 看一下 看看 看下 告诉我 告诉 我想知道 我想查 我想问一下 我想问 我想 想知道 想问 想查 我要
我需要 需要 知道 一下 能不能 能否 可不可以 可以 是不是 是否 有没有 怎么样了 怎么样 怎样 怎么办 怎么 如何 为什么 为何
什么时候 什么地方 什么样 什么 哪里 哪儿 哪个 哪些 哪一个 多少 多久 几个 那么 那个 这个 那些 这些 那边 这边 它们 他们
她们 我们 你们 现在 目前 已经 没有 还没 一个 一些 关于 以及 或者 还是 如果 因为 所以 但是 然后 另外 还有 此外 情况
未来 今后 接下来 近几天 几天 两个 三个 几次
再说一遍 一遍 再说 重说 今天 明天 后天 昨天 今晚 明早 本周 下周 谢谢 你好 您好 大概 应该 可能 的话 时候 指的是 意思 当前
"""
"""Chinese phrases that ask rather than say what about."""

PARTICLES = "的了吗呢吧啊呀嘛么呗哦是在我你您他她它这谁请"
"""Characters that carry no content at the edge of a Chinese stretch."""

REQUEST_CHARACTERS = "和与及或把给让被对有没不就也再又还要想能会查问说看从到去个哪该用做过帮"
"""The same, unless a single character is left: 和田 and 新会 are names."""

FUNCTION_CHARACTERS = "那都来为得地着几"
"""Characters that carry no content where they stand alone, and often are part of a name: 成都, 都江堰, 哈瓦那."""
