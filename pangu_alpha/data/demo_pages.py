"""Web pages made up for the demo: news, shops, forums and offices, each line known to be menu, advertisement or text.

Nothing is fetched and nothing real is copied, so a user sees the whole way from HTML to samples, and tests know of every
line what it is.
"""

from __future__ import annotations

import random
from html import escape
from pathlib import Path
from typing import NamedTuple

from pangu_alpha.files import atomic_directory

DEMO_PAGES = "demo:pages"
"""Name of these pages among a recipe's paths."""
MENU, ADVERTISEMENT, TEXT = "menu", "advertisement", "text"

_MENUS = [
    ["首页", "新闻", "国内", "国际", "财经", "体育", "娱乐", "科技", "汽车", "房产"],
    ["网站首页", "产品中心", "新闻动态", "成功案例", "人才招聘", "联系我们", "在线留言"],
    ["论坛首页", "版块", "精华区", "灌水区", "求助", "二手市场", "登录", "注册"],
    ["走进本县", "政务公开", "办事服务", "互动交流", "数据开放", "专题专栏"],
    ["全部商品分类", "手机数码", "家用电器", "电脑办公", "服饰内衣", "母婴玩具", "图书音像", "购物车"],
]
_FOOTERS = [
    "版权所有 © 2021 某某网 保留所有权利", "京ICP备00000000号-1", "关于我们 | 联系我们 | 广告服务 | 网站地图 | 友情链接",
    "Copyright © 2020 All Rights Reserved", "上一页", "下一页", "返回顶部",
]  # fmt: skip
_CRUMBS = ["当前位置：首页 > 新闻 > 正文", "您的位置：首页 » 资讯中心 » 地方", "首页 › 论坛 › 生活 › 帖子"]
_ADVERTISEMENTS = [
    "【广告】限时优惠，全场五折起，点击购买，包邮到家！", "加微信：meili_2020，免费领取试用装，美白套餐热销中",
    "咨询热线：400-000-0000，厂家直销，欢迎来电订购", "扫码关注公众号，立即领取优惠券，秒杀专场等你来",
    "代开发票，贷款热线，无抵押秒到账，加QQ群咨询", "点击下载APP，首充返利，月入过万不是梦",
]  # fmt: skip
_SUBJECTS = [
    "县农业部门",
    "这所小学",
    "老城区的居民",
    "研究小组",
    "几位退休工人",
    "图书馆",
    "村里的合作社",
    "铁路部门",
    "年轻的工程师们",
    "博物馆",
]
_TIMES = [
    "去年秋天",
    "本月初",
    "经过三年的准备",
    "在连日的大雨之后",
    "上个星期",
    "春节过后",
    "从今年五月起",
    "昨天下午",
]
_DEEDS = [
    "把旧仓库改成了可以容纳两百人的阅览室", "在河边种下了一千多棵柳树，并且约定每户照看十棵", "公布了对当地方言的第一份完整记录",
    "修好了那座停用多年的水磨，让它重新为大家磨面", "开始用收集的雨水浇灌屋顶上的菜园", "整理出一批民国时期的信件，准备印成一本书",
    "为山里的孩子开设了每周一次的天文课", "请来老师傅，教年轻人怎样编竹篮和补渔网", "给所有的古树挂上了写明树龄的木牌",
    "把废弃的铁路路基铺成了一条自行车道", "试种了五种耐旱的谷子，收成比预料的好", "办起一份油印小报，专门登载街坊的回忆",
    "拆掉围墙，让花园向过路的人开放", "用三个月的时间测量了镇上每一口水井", "重新排演了几乎失传的皮影戏", "在渡口旁边搭起了供候鸟歇脚的木架",
]  # fmt: skip
_REASONS = [
    "因为大家觉得，花钱不多而人人受益的事情应该先做", "主持这件事的人说，他们只是不愿意看着老手艺失传", "起初没有多少人相信能够办成，后来参加的人越来越多",
    "这样一来，原来要走半天的路，现在只要四十分钟", "有关的费用由大家分担，账目贴在村口的墙上，谁都可以去看", "专家认为，这种做法值得其他地方参考，但不能照搬",
    "消息传开以后，邻近几个镇也派人来打听", "最忙的时候，连放假回家的学生都来帮忙", "遇到的困难比想象中多，好在没有人半途离开",
    "材料大多是旧的，只有钉子和油漆是新买的", "有人专门写了日记，记下每天完成了多少", "一位九十岁的老人送来了自己保存的图纸",
]  # fmt: skip
_ENDS = [
    "这件事还在继续。",
    "下一步，他们打算把经验写出来。",
    "人们说，日子是一天一天好起来的。",
    "到年底，预计会有更多的人参加。",
    "天气转凉以后，工程暂时停了下来。",
]


class PageLine(NamedTuple):
    """One line of a page, and what it is."""

    text: str
    kind: str


def demo_page(number: int) -> tuple[str, list[PageLine]]:
    """The HTML of page `number`, and its lines in the order in which a reader sees them."""
    draw = random.Random(f"demo page {number}")
    title = f"{draw.choice(_SUBJECTS)}{draw.choice(['的新尝试', '做成了一件事', '纪事', '的一年', '见闻'])}（{number}）"
    lines: list[PageLine] = [PageLine(item, MENU) for item in draw.choice(_MENUS)]
    head = "".join(f"<li><a href='/{place}'>{escape(line.text)}</a></li>" for place, line in enumerate(lines))
    crumb = draw.choice(_CRUMBS)
    lines += [PageLine(crumb, MENU), PageLine(title, TEXT)]
    body = []
    deeds, reasons = draw.sample(_DEEDS, len(_DEEDS)), draw.sample(_REASONS, len(_REASONS))
    for _ in range(draw.randrange(6, 11)):
        if draw.random() < 0.25:
            lines.append(PageLine(draw.choice(_ADVERTISEMENTS), ADVERTISEMENT))
        else:
            lines.append(PageLine(_paragraph(draw, deeds, reasons), TEXT))
        body.append(f"<p>{escape(lines[-1].text)}</p>")
    footer = draw.sample(_FOOTERS, 4)
    lines += [PageLine(item, MENU) for item in footer]
    tail = "".join(f"<div>{escape(item)}</div>" for item in footer)
    html = (
        f"<!DOCTYPE html><html lang='zh-CN'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>p {{ margin: 1em }}</style></head><body><ul class='m'>{head}</ul><div>{escape(crumb)}</div>"
        f"<h1>{escape(title)}</h1>{''.join(body)}{tail}<script>var visited = {number};</script></body></html>"
    )
    return html, lines


def _paragraph(draw: random.Random, deeds: list[str], reasons: list[str]) -> str:
    """One that says nothing twice that the page has said, as long as there is something left."""
    reason = f"{reasons.pop()}。" if reasons and draw.random() < 0.8 else ""
    return f"{draw.choice(_TIMES)}，{draw.choice(_SUBJECTS)}{deeds.pop()}。{reason}{draw.choice(_ENDS) if draw.random() < 0.2 else ''}"


def write_demo_pages(folder: Path, pages: int = 60) -> Path:
    """Pages 0, 1, 2 … as HTML files in `folder`, unless they are there; gives the folder back."""
    if not folder.exists():
        with atomic_directory(folder, replace=False) as partial:
            for number in range(pages):
                (partial / f"page_{number:03d}.html").write_text(demo_page(number)[0], encoding="utf-8")
    return folder
